"""The workers of a job as a client reaches them: told to stop, and asked what they ever wrote."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from crossdock.cleanup.deleting import Told
from crossdock.errors import CrossdockError, ProtocolError, Unavailable
from crossdock.http import Response

if TYPE_CHECKING:
    from crossdock.cluster import Cluster

Command = Callable[[str], Response]
"""Sends what tells a worker at a URL to stop; its answer is JSON with `worker` and `stored`, and
maybe with `store_idle_seconds`."""


class ClusterWorkers:
    """Workers that may write for a job. Not thread-safe."""

    def __init__(
        self,
        cluster: "Cluster",
        command: Command,
        *,
        met: Collection[str],
        met_all: bool,
        prove: Command | None = None,
        empty: Command | None = None,
        note: Callable[[Mapping[str, object]], None] = lambda _: None,
    ) -> None:
        """Ask who is there.

        Args:
            cluster: of the job.
            command: tells a worker to stop.
            met: ids of those that the job's owner has ever met, and of its homes.
            met_all: whether `met` has all that there ever were: its owner has spoken to them since
                the job began. Else what they answer does not say that nothing is in the store.
            prove: tells a worker that nothing is left; None: they need not know.
            empty: tells a worker that has stopped that what there was is deleted; None: as above.
            note: is told each answer to `command`, from several threads.

        Raises:
            Unavailable: no worker answers.
        """
        self._cluster = cluster
        self._command = command
        self._prove = prove
        self._empty = empty
        self._know_empty: set[str] = set()
        """Ids of those that were told so."""
        self._note = note
        self._stored: dict[str, bool | None] = {}
        self._told_once = False
        members = cluster.members(fresh=True)
        away = {cluster.id_at(url) or url for url in members.unreachable}
        absent = set(met) - members.reachable.keys() - members.lost_ids
        self._names = frozenset({*members.reachable, *away, *absent})
        self._met_all = met_all and not away and not absent and not members.lost_ids

    def names(self) -> frozenset[str]:
        """Return ids; of workers that nobody knows by id yet, their URLs."""
        return self._names

    def stop(self, names: frozenset[str]) -> Told:
        """Tell all that answer, also those that came since."""
        cluster = self._cluster
        again, self._told_once = self._told_once, True
        try:
            members = cluster.members(fresh=again)
        except Unavailable:
            return Told()
        stopped, idle = set(), {}
        for worker, outcome in cluster.each_worker(members, self._told).items():
            if isinstance(outcome, Unavailable):
                continue
            if isinstance(outcome, CrossdockError):
                raise outcome
            answered, stored, idle_seconds = outcome
            if answered == worker:
                stopped.add(worker)
                self._stored[worker] = stored
                idle[worker] = idle_seconds
        urls = {members.reachable[worker].url for worker in stopped}
        return Told(frozenset(stopped | (names & urls)), members.lost_ids, idle)

    def _told(self, url: str) -> tuple[str, bool | None, float]:
        with self._command(url) as response:
            answer = response.read_json()
        if not isinstance(answer, dict):
            raise ProtocolError(f"{url} answered no JSON object")
        self._note(answer)
        stored, idle = answer.get("stored"), answer.get("store_idle_seconds")
        if not isinstance(idle, int | float) or not idle >= 0:
            idle = 0.0
        if stored is False:
            idle = inf
        return str(answer.get("worker")), stored if isinstance(stored, bool) else None, idle

    def everybody(self) -> bool:
        """Whether these are all that ever there were."""
        return self._met_all

    def untouched(self) -> bool:
        """Whether all that there ever were have answered that they never wrote to the store."""
        return (
            self._met_all
            and self._stored.keys() == self._names
            and all(stored is False for stored in self._stored.values())
        )

    def emptied(self) -> None:
        """Tell those that have stopped, once."""
        news = self._stored.keys() - self._know_empty
        if self._empty is not None and news:
            self._know_empty |= news
            self._tell(self._empty, news)

    def proved(self) -> None:
        """Tell those that answer."""
        if self._prove is not None:
            self._tell(self._prove)

    def _tell(self, command: Command, names: Collection[str] | None = None) -> None:
        """Give a command to workers, all for None; who does not hear of it finds out by itself."""

        def call(url: str) -> None:
            with command(url) as response:
                response.read()

        with suppress(Unavailable):
            members = self._cluster.members()
            some = {id_: w for id_, w in members.reachable.items() if names is None or id_ in names}
            self._cluster.each_worker(replace(members, reachable=some), call)
