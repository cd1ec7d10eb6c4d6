"""Views for clients that do not merge workers' answers themselves: the client does it for them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from crossdock.errors import AttemptsMissing, ProtocolError
from crossdock.views import ShuffleKey

if TYPE_CHECKING:
    from crossdock_worker.worker import Worker

_DEADLINE_SECONDS = 20.0
_MAX_MAPS = 1_000_000
"""Each that has no complete attempt is named in the answer."""


def view_json(
    worker: "Worker", key: ShuffleKey, wish: object, authorization: str
) -> dict[str, object]:
    """Return the JSON of a view, made with the caller's own token.

    Args:
        worker: where to begin; its peers are asked too.
        key: the shuffle.
        wish: {"partitions": P, "winners": [[map, attempt], …]} or {"partitions": P, "maps": M}.
        authorization: the caller's header.
    """
    if not isinstance(wish, Mapping):
        raise ProtocolError("the body is a JSON object with partitions, and winners or maps")
    partitions = _int(wish.get("partitions"))
    worker.settings.limits.check_partitions(partitions)
    winners = None if wish.get("winners") is None else _winners(wish["winners"])
    maps = None if wish.get("maps") is None else _int(wish["maps"])
    if maps is not None and not 0 <= maps <= _MAX_MAPS:
        raise ProtocolError(f"maps {maps} is not between 0 and {_MAX_MAPS}")
    token = authorization.partition(" ")[2].strip()
    with (
        worker.client(token, deadline_seconds=_DEADLINE_SECONDS) as cluster,
        cluster.job(key.job) as job,
    ):
        shuffle = job.shuffle(key.name, partitions=partitions, generation=key.generation, maps=maps)
        try:
            view = shuffle.view(winners)
        except AttemptsMissing as error:
            return {"id": None, "missing": error.to_json()["missing"]}
        return {
            "id": view.id,
            "missing": [],
            "winners": sorted(view.winners.items()),
            "bytes": view.bytes.tolist(),
            "rows": view.rows.tolist(),
            "blocks": view.blocks.tolist(),
            "places": view.places(),
        }


def _winners(wish: object) -> list[tuple[int, int]]:
    pairs = list(wish.items()) if isinstance(wish, Mapping) else wish
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    ):
        raise ProtocolError("winners is {map: attempt} or a list of [map, attempt]")
    return [(_int(m), _int(a)) for m, a in pairs]


def _int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ProtocolError(f"{value!r} is no whole number")
    try:
        return int(value)
    except ValueError:
        raise ProtocolError(f"{value!r} is no whole number") from None
