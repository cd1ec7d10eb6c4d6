"""The one choice of winners of a shuffle whose callers know none: made once, kept at its homes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crossdock import placement, views
from crossdock.errors import (
    ConfigError,
    JobUnknown,
    SealLost,
    ShuffleIncomplete,
    ShuffleMismatch,
    Unavailable,
    WorkersLost,
)
from crossdock.views import explained
from crossdock.wire import tables
from crossdock.wire.tables import Table

if TYPE_CHECKING:
    from crossdock.shuffle import Shuffle


class Seals:
    """Asks the homes of a shuffle's seal."""

    def __init__(self, shuffle: "Shuffle") -> None:
        self._shuffle = shuffle
        self._job = shuffle.job
        self._key = shuffle.key

    def choice(self) -> Table:
        """Return the one choice of winners, made now if nobody has made it."""
        if self._shuffle.maps is None:
            raise ConfigError(
                "a view without winners needs the number of maps",
                hint="job.shuffle(…, maps=M), or view(winners=…)",
            )
        homes = self.homes()
        existing = self._seals(homes)
        if existing is not None:
            if len(existing) != self._shuffle.maps:
                raise ShuffleMismatch(
                    f"shuffle {self._key.name!r} was sealed with {len(existing)} maps, and "
                    f"{self._shuffle.maps} are asked for"
                )
            return existing
        held, away, notes = self._shuffle.held(None)
        winners, lacking = views.choose_winners(held, self._shuffle.maps)
        if lacking and away:
            raise Unavailable(
                f"{len(lacking)} maps have no complete attempt, and these workers do not answer: "
                f"{', '.join(sorted(away))}"
            )
        if lacking:
            raise ShuffleIncomplete(explained(lacking, notes))
        sealed = self._seal("PUT", homes[0], tables.encode(winners))
        for copy in homes[1:2]:
            self._seal("PUT", copy, tables.encode(sealed))
        return sealed

    def _seals(self, homes: Sequence[str]) -> Table | None:
        """Return the choice that was made, if one was, once its first two homes have it.

        The deciding home may have been away when it was made, or its copy may have failed then:
        with one copy the loss of a worker would have it made again, and otherwise.
        """
        found = [self._seal("GET", home, b"") for home in homes]
        made = next((seal for seal in found if len(seal)), None)
        if made is None:
            return None
        for home, seal in list(zip(homes, found, strict=True))[:2]:
            if not len(seal):
                made = self._seal("PUT", home, tables.encode(made))
        return made

    def homes(self) -> list[str]:
        """Return the URLs of the workers for this shuffle's seal, the deciding one first.

        While the deciding one is away nobody else decides; once it is confirmed lost the next
        one does, which has the copy.
        """
        if not self._job.record.homes:
            raise ConfigError(
                f"job {self._key.job} was registered without homes: nothing can hold a seal",
                hint="register it with homes, the ids of its workers, or pass winners",
            )
        try:
            members = self._job.cluster.members(fresh=True)
        except WorkersLost as error:
            raise self._seal_lost([error.message]) from error
        key = f"seal/{self._key.job}/{self._key.name}/{self._key.generation}"
        found = []
        for worker in placement.ranked(key, self._job.record.homes):
            if worker in members.reachable:
                found.append(members.reachable[worker].url)
            elif members.unreachable and not found:
                raise Unavailable(f"worker {worker}, home of the seal, does not answer")
        if not found:
            raise self._seal_lost(members.lost)
        return found

    def _seal_lost(self, notes: Sequence[str]) -> SealLost:
        why = "; ".join(notes) or "all are gone"
        return SealLost(
            f"no home of the seals of job {self._key.job} is left, so nobody knows which "
            f"attempts were chosen, and nobody can choose again: {why}"
        )

    def _seal(self, method: str, url: str, body: bytes) -> Table:
        """Read or store a seal; of length 0 when there is none."""
        target = f"{self._shuffle.path}/seal?epoch={self._job.epoch}"

        def call() -> Table:
            with self._job.cluster.pool.call(method, url, target, body=body) as response:
                return tables.decode(tables.ATTEMPT, response.read(), what="seal")

        try:
            return call()
        except JobUnknown:  # a home that was not told of the job yet
            self._job.introduce(url)
            return call()
