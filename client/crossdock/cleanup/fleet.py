"""The workers of a cluster as a sweep sees them: which jobs are on their disks, and fences."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossdock.errors import CleanupUnfinished, ConfigError, ProtocolError
from crossdock.lifecycle.sweep import Known, live_jobs
from crossdock.records import Owner
from crossdock.wire import names

if TYPE_CHECKING:
    from crossdock.cluster import Cluster


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A job that has files at a worker."""

    worker: str
    job: str
    fenced: bool
    age_seconds: float
    """Since it came there, or the worker began."""
    nbytes: int
    of_process: bool
    """Whether its owner's silence ends it."""
    damaged: bool = False
    """Whether its record does not read: whose it is, is not known."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the workers have answered."""

    asked: float
    """When the first was asked, monotonic."""
    known: Mapping[str, float | None]
    """By id, or URL, for how long each has been up; None for no answer. Without those that were
    declared gone."""
    jobs: tuple[OnDisk, ...]

    @property
    def silent(self) -> list[str]:
        """Those that gave no answer."""
        return sorted(worker for worker, known in self.known.items() if known is None)

    def live(self, *, longest_seconds: float, of_processes: bool = False) -> frozenset[str] | None:
        """Return which jobs live, as far as the workers can say it; None if they cannot.

        Args:
            longest_seconds: no job has a longer lease and grace than this together.
            of_processes: only those of processes: somebody else knows the operator's.
        """
        uids = frozenset(
            each.job for each in self.jobs
            if not (each.fenced or each.damaged) and (each.of_process or not of_processes)
        )  # fmt: skip
        known = [None if up is None else Known(uids, up) for up in self.known.values()]
        found = live_jobs(known, longest_seconds=longest_seconds, age_seconds=0.0)
        return None if found is None else found.uids

    @property
    def damaged(self) -> frozenset[str]:
        """Jobs whose records do not read, wherever they are: nobody can take frames for them."""
        sound = {each.job for each in self.jobs if not each.damaged}
        return frozenset({each.job for each in self.jobs if each.damaged} - sound)


class Fleet:
    """All workers that an endpoint knows of. Its caller needs an administrator's token."""

    def __init__(self, cluster: "Cluster", uid: str, *, epoch: int | None = None) -> None:
        """Know the workers that `cluster` speaks to.

        Args:
            cluster: connected.
            uid: the workers' --cluster.
            epoch: goes with fences: a job that was taken over with a higher one refuses.
        """
        self._uid = uid
        self._cluster = cluster
        self._query = "" if epoch is None else f"?epoch={epoch}"

    def ask(self) -> Asked:
        """Ask all which jobs they have.

        Raises:
            Unavailable: none answers.
            AccessError: the token is no administrator's.
            ConfigError: a worker is of another cluster.
        """
        cluster = self._cluster
        asked = time.monotonic()
        members = cluster.members(fresh=True)
        found = cluster.ask_each(members, self._jobs)
        known: dict[str, float | None] = dict.fromkeys(found.away)
        jobs: list[OnDisk] = []
        for worker, (uptime, each) in found.answers.items():
            known[worker] = uptime
            jobs += each
        return Asked(asked, known, tuple(jobs))

    def _jobs(self, url: str) -> tuple[float, list[OnDisk]]:
        with self._cluster.pool.call("GET", url, "/v1/jobs") as response:
            answer = response.read_json()
        try:
            worker = str(answer["worker"])  # type: ignore[index]
            cluster = str(answer["cluster"])  # type: ignore[index]
            jobs = [
                OnDisk(
                    worker,
                    str(j["uid"]),
                    j["fenced"] is True,
                    float(j["age_seconds"]),
                    int(j["disk_bytes"]),
                    j["owner"] in {Owner.RUNNER, Owner.DRIVER},
                    j["owner"] is None,
                )
                for j in answer["jobs"]  # type: ignore[index]
            ]
            uptime = float(answer["uptime_seconds"])  # type: ignore[index]
        except (TypeError, KeyError, ValueError) as error:
            raise ProtocolError(f"{url}/v1/jobs lists no jobs: {error!r}") from error
        if cluster != self._uid:
            raise ConfigError(
                f"the worker at {url} is of cluster {cluster!r}, not {self._uid!r}",
                hint="its jobs say nothing of that cluster's: name workers of the same one",
            )
        return uptime, jobs

    def fence(self, job: str) -> None:
        """Have every worker refuse a job, and delete its files.

        Raises:
            CleanupUnfinished: some worker does not answer.
            StaleEpoch: it lives, and somebody with a higher epoch owns it.
        """
        cluster = self._cluster

        def call(url: str) -> None:
            path = f"{names.job_path(job)}{self._query}"
            with cluster.pool.call("DELETE", url, path) as response:
                response.read()

        away = cluster.ask_each(cluster.members(), call).away
        if away:
            raise CleanupUnfinished(
                f"job {job} is not fenced: these workers do not answer: {', '.join(sorted(away))}",
                hint="nothing of it was deleted; sweep again, or declare them gone",
            )
