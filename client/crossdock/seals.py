"""The one choice of winners of a shuffle whose callers know none: made once, kept at its homes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from crossdock import placement, views
from crossdock.errors import (
    ConfigError,
    SealHomeClosed,
    SealLost,
    ShuffleIncomplete,
    ShuffleMismatch,
    Unavailable,
    WorkersLost,
)
from crossdock.records import STAYING
from crossdock.survey import Members, Silences
from crossdock.views import explained
from crossdock.wire import tables
from crossdock.wire.tables import Table

if TYPE_CHECKING:
    from crossdock.shuffle import Shuffle

CLOSED_HEADER: Final = "crossdock-home"
CLOSED: Final = "closed"
IN_STORE: Final = "store"
"""Of a call's query: about the seal in the store."""
IN_CLOSED: Final = "closed"
"""Of a call's query: to a home that has closed, as all others have."""
_COPIES: Final = 2
"""Homes that have each seal: with one copy the loss of a worker would have it made again."""


@dataclass(frozen=True, slots=True, eq=False)
class _Home:
    """A home that answers, and what it says."""

    url: str
    seal: Table
    """Of length 0 if it has none."""
    closed: bool
    """Whether it makes no seals any more; then others decide what it has not."""
    stays: bool = False
    """Whether it is not about to go."""


class Seals:
    """Asks the homes of a shuffle's seal, and the store once all homes have left theirs there."""

    def __init__(self, shuffle: "Shuffle") -> None:
        self._shuffle = shuffle
        self._job = shuffle.job
        self._key = shuffle.key
        self._began = time.monotonic()
        """When the members were asked last."""
        self._silences = Silences(self._job.cluster.options.loss_after_seconds)

    def choice(self) -> Table:
        """Return the one choice of winners, made now if nobody has made it."""
        if self._shuffle.maps is None:
            raise ConfigError(
                "a view without winners needs the number of maps",
                hint="job.shuffle(…, maps=M), or view(winners=…)",
            )
        members = self._members()
        homes = self._homes(members)
        made = next((home.seal for home in homes if len(home.seal)), None)
        if made is None and all(home.closed for home in homes):
            made = self._seal_in_store(members, homes)
        if made is None or not len(made):
            made = self._decide(members, homes, self._choose(self._shuffle.maps))
        elif len(made) != self._shuffle.maps:
            raise ShuffleMismatch(
                f"shuffle {self._key.name!r} was sealed with {len(made)} maps, and "
                f"{self._shuffle.maps} are asked for"
            )
        self._copy(homes, made)
        return made

    def leave(self, own_url: str, winners: Table) -> None:
        """Hand a seal from a home that has closed to those that decide after it.

        Raises:
            SealLost: no home is left; only a store can keep it.
            Unavailable: the next home does not answer.
        """
        homes = self._homes(self._members(), without=own_url)
        if all(home.closed for home in homes):
            self._leave_to_closed([home for home in homes if home.stays], winners)
        elif not self._copy(homes, winners):
            raise Unavailable("no other home has taken the seal")

    def _leave_to_closed(self, homes: Sequence[_Home], winners: Table) -> None:
        """Hand a seal to homes that drained once and have come back."""
        if not homes:
            raise self._seal_lost(["no other home is open"])
        for home in homes[:_COPIES]:
            if not len(home.seal):
                self._put_closed(home, winners)

    def _choose(self, maps: int) -> Table:
        """Apply the rule to what is held now, by workers and, if need be, by the store."""
        held, away, notes = self._shuffle.held(None)
        winners, lacking = views.choose_winners(held, maps)
        if lacking:
            away |= self._shuffle.away_homes()
            stored = self._job.cluster.tier.holders(self._key)
            winners, lacking = views.choose_winners({**held, **stored.frames}, maps)
            notes += stored.notes
        if lacking and away:
            raise Unavailable(
                f"{len(lacking)} maps have no complete attempt, and these workers do not answer: "
                f"{', '.join(sorted(away))}"
            )
        if lacking:
            raise ShuffleIncomplete(explained(lacking, notes))
        return winners

    def _decide(self, members: Members, homes: Sequence[_Home], winners: Table) -> Table:
        body = tables.encode(winners)
        url = next((home.url for home in homes if not home.closed), "")
        if not url:
            return self._decide_closed(members, homes, winners)
        try:
            return self._seal("PUT", url, body).seal
        except SealHomeClosed as error:
            raise Unavailable(f"{url} has just stopped to make seals") from error

    def _decide_closed(self, members: Members, homes: Sequence[_Home], winners: Table) -> Table:
        """Have the store decide when all homes have closed, or else the first of them again.

        That one only if all of them are here: then each of them has said that it never chose, and
        never will by itself, and they all lead to the same one.
        """
        try:
            return self._in_store(members, "PUT", tables.encode(winners))
        except SealLost as error:
            self._check_all_here(members, homes, error)
        held = self._put_closed(homes[0], winners)
        for home in homes[1:_COPIES]:
            self._put_closed(home, held)
        return held

    def _put_closed(self, home: _Home, winners: Table) -> Table:
        body = tables.encode(winners)
        try:
            return self._seal("PUT", home.url, body, query=f"&in={IN_CLOSED}").seal
        except SealHomeClosed as error:
            raise Unavailable(f"{home.url}, home of the seal, drains") from error

    def _check_all_here(self, members: Members, homes: Sequence[_Home], error: SealLost) -> None:
        """Raise unless all homes answer: for a while `Unavailable`, if some do, then the error.

        Peers say of a worker that drained that it is gone as soon as it does not answer. It may be
        on its way back.
        """
        absent = set(self._job.record.homes) - members.reachable.keys()
        if not absent and len(homes) == len(self._job.record.homes):
            return
        away = self._silences.still_away(absent, self._began)
        if homes and away:
            raise Unavailable(
                f"homes of the seal have drained, and may come back: {', '.join(sorted(away))}"
            ) from error
        raise error

    def _copy(self, homes: Sequence[_Home], seal: Table) -> bool:
        """See to it that the first two open homes have the choice; return whether any has.

        The deciding home may have been away when it was made, or its copy may have failed then.
        """
        kept = False
        for home in [home for home in homes if not home.closed][:_COPIES]:
            if not len(home.seal):
                try:
                    self._seal("PUT", home.url, tables.encode(seal))
                except SealHomeClosed:  # it leaves, and the next who asks copies it
                    continue
            kept = True
        return kept

    def _members(self) -> Members:
        if not self._job.record.homes:
            raise ConfigError(
                f"job {self._key.job} was registered without homes: nothing can hold a seal",
                hint="register it with homes, the ids of its workers, or pass winners",
            )
        self._began = time.monotonic()
        try:
            return self._job.cluster.members(fresh=True)
        except WorkersLost as error:
            raise self._seal_lost([error.message]) from error

    def _homes(self, members: Members, *, without: str = "") -> list[_Home]:
        """Ask the workers for this shuffle's seal; the deciding one comes first.

        While the deciding one is away nobody else decides. Once it is confirmed lost the next one
        does, which has the copy; and so it does when it has closed and left what it had.
        """
        key = f"seal/{self._key.job}/{self._key.name}/{self._key.generation}"
        away = self._job.away_homes(members, self._began)
        found: list[_Home] = []
        for worker in placement.ranked(key, self._job.record.homes):
            info = members.reachable.get(worker)
            if info is None:
                if worker in away and all(home.closed for home in found):
                    raise Unavailable(f"worker {worker}, home of the seal, does not answer")
            elif info.url != without:
                stays = info.state in STAYING
                try:
                    found.append(replace(self._seal("GET", info.url, b""), stays=stays))
                except SealHomeClosed:
                    none = np.empty(0, tables.ATTEMPT)
                    found.append(_Home(info.url, none, closed=True, stays=stays))
        return found

    def _seal_in_store(self, members: Members, homes: Sequence[_Home]) -> Table | None:
        """Return the seal that is in the store, if there is one, and a store."""
        try:
            return self._in_store(members, "GET", b"")
        except SealLost as error:
            self._check_all_here(members, homes, error)
            return None

    def _in_store(self, members: Members, method: str, body: bytes) -> Table:
        """Read a seal in the store, or have it decided there, through any worker."""
        problem: Unavailable | None = None
        for info in members.reachable.values():
            try:
                return self._seal(method, info.url, body, query=f"&in={IN_STORE}").seal
            except Unavailable as error:
                problem = error
            except ConfigError:  # it has no store
                continue
        raise problem or self._seal_lost(members.lost)

    def _seal_lost(self, notes: Sequence[str]) -> SealLost:
        why = "; ".join(notes) or "all are gone"
        return SealLost(
            f"no home of the seals of job {self._key.job} is left, so nobody knows which "
            f"attempts were chosen, and nobody can choose again: {why}"
        )

    def _seal(self, method: str, url: str, body: bytes, *, query: str = "") -> _Home:
        """Read or store a seal."""
        target = f"{self._shuffle.path}/seal?epoch={self._job.epoch}{query}"

        def call() -> _Home:
            with self._job.cluster.pool.call(method, url, target, body=body) as response:
                closed = response.headers.get(CLOSED_HEADER) == CLOSED
                seal = tables.decode(tables.ATTEMPT, response.read(), what="seal")
                return _Home(url, seal, closed)

        return self._job.ask(url, call)
