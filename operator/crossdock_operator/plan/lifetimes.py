"""How long a job and its shuffles stay: what it says, else its cluster, and never over its caps."""

from dataclasses import dataclass

from crossdock.records import Persistence
from crossdock_operator.api.lifecycle import Lifecycle, ReleaseShuffles
from crossdock_operator.records import Cluster, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """Of one job."""

    after_success_seconds: int | None
    """It is deleted so long after it succeeded; None: it stays."""
    after_failure_seconds: int | None
    max_age_seconds: int | None
    """It is ended at this age; None: never."""
    keep_on_failure: bool
    """Whether shuffles of a job that failed stay until it is deleted."""
    release_consumed: bool = False
    """Whether shuffles go that nobody needs any more, before the job's end."""

    def ttl_seconds(self, *, failed: bool) -> int | None:
        """Return how long a job stays that has ended."""
        return self.after_failure_seconds if failed else self.after_success_seconds


def lifetimes(job: Job, cluster: Cluster | None) -> Lifetimes:
    """Return what holds for a job; of its own word alone where the cluster is not there."""
    own = job.spec.lifecycle
    given = cluster.spec.jobs.lifecycle if cluster is not None else Lifecycle()
    most_ttl = cluster.spec.jobs.most_ttl_seconds if cluster is not None else None
    most_age = cluster.spec.jobs.most_age_seconds if cluster is not None else None
    policy = job.spec.persistence or (cluster.spec.persistence.policy if cluster else "")
    release = own.release_shuffles or given.release_shuffles
    age = _first(own.max_age_seconds, given.max_age_seconds)
    return Lifetimes(
        after_success_seconds=_capped(
            _first(own.ttl_seconds_after_success, given.ttl_seconds_after_success), most_ttl
        ),
        after_failure_seconds=_capped(
            _first(own.ttl_seconds_after_failure, given.ttl_seconds_after_failure), most_ttl
        ),
        max_age_seconds=_capped(age or None, most_age),
        keep_on_failure=bool(
            own.keep_on_failure if own.keep_on_failure is not None else given.keep_on_failure
        ),
        release_consumed=release is ReleaseShuffles.WHEN_CONSUMED and policy != Persistence.NEVER,
    )


def _first(own: int | None, given: int | None) -> int | None:
    return given if own is None else own


def _capped(value: int | None, most: int | None) -> int | None:
    """Return the value, at most the cap; who sets a cap wants an end."""
    if most is None:
        return value
    return most if value is None else min(value, most)
