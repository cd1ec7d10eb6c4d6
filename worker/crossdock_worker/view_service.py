"""Views for clients that do not merge workers' answers themselves: the client does it for them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import crossdock
from crossdock.errors import BlocksLost, ProtocolError
from crossdock.views import ShuffleKey

if TYPE_CHECKING:
    from crossdock_worker.worker import Worker

_DEADLINE_SECONDS = 20.0


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
    if not isinstance(wish, Mapping) or not isinstance(wish.get("partitions"), int):
        raise ProtocolError("the body is a JSON object with partitions, and winners or maps")
    winners = wish.get("winners")
    if isinstance(winners, Mapping):
        winners = [(_int(m), _int(a)) for m, a in winners.items()]
    elif isinstance(winners, list):
        winners = [(_int(m), _int(a)) for m, a in winners]
    elif winners is not None:
        raise ProtocolError("winners is {map: attempt} or a list of [map, attempt]")
    maps = wish.get("maps")
    tls = worker.settings.tls_ca or worker.settings.tls_cert
    urls = [worker.url, *(p.url for p in worker.membership if p.state != "gone")]
    with crossdock.connect(
        urls,
        token=authorization.removeprefix("Bearer ").strip(),
        ca_file=tls,
        options=crossdock.Options(deadline_seconds=_DEADLINE_SECONDS),
    ) as cluster, cluster.job(key.job) as job:
        shuffle = job.shuffle(
            key.name, partitions=wish["partitions"], generation=key.generation,
            maps=None if maps is None else _int(maps),
        )  # fmt: skip
        try:
            view = shuffle.view(winners)
        except BlocksLost as error:
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


def _int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ProtocolError(f"{value!r} is no whole number")
    try:
        return int(value)
    except ValueError:
        raise ProtocolError(f"{value!r} is no whole number") from None
