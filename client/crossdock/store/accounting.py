"""Every request counted by verb, outcome and job, and what they cost, estimated."""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import errorcode
from typing import Final

from crossdock.errors import ConfigError, CrossdockError, ProtocolError
from crossdock.store.api import Meter, Verb
from crossdock.store.layout import job_of

NO_JOB: Final = ""
"""Stands for requests of no job: probes, sweeps, and jobs beyond the bound."""
OTHER: Final = "other"
"""Stands for outcomes beyond the bound."""

_PER_THOUSAND: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars for a thousand requests. The defaults are S3 Standard's in us-east-1."""

    write: float = 0.005
    """PUT, COPY, POST, LIST, and each call of a multipart upload."""
    read: float = 0.0004
    """GET and HEAD."""
    delete: float = 0.0
    """DELETE and abort."""

    def of(self, verb: Verb) -> float:
        """Return the dollars of one request."""
        if verb in _DELETES:
            return self.delete * _PER_THOUSAND
        return (self.read if verb in _READS else self.write) * _PER_THOUSAND


FREE: Final = Prices(0.0, 0.0, 0.0)
"""Of stores that bill no requests: directories, HDFS."""
_FREE_SCHEMES: Final = {"file", "hdfs"}


def prices_of(url: str, text: str = "") -> Prices:
    """Return what a store bills.

    Args:
        url: of the store.
        text: "WRITE,READ,DELETE", dollars for a thousand requests; "": nothing for directories and
            HDFS, else S3 Standard's.

    Raises:
        ConfigError: the text is not three numbers from 0 up.
    """
    if not text:
        return FREE if url.partition(":")[0] in _FREE_SCHEMES else Prices()
    try:
        write, read, delete = (float(part) for part in text.split(","))
        sound = all(0 <= price < math.inf for price in (write, read, delete))
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(
            f"store prices {text!r} are not WRITE,READ,DELETE",
            hint="dollars for 1,000 requests, such as 0.005,0.0004,0",
        )
    return Prices(write, read, delete)


_READS: Final = frozenset({Verb.GET, Verb.HEAD, Verb.GET_LIFECYCLE, Verb.GET_VERSIONING})
_DELETES: Final = frozenset({Verb.DELETE, Verb.ABORT_UPLOAD})
WRITES: Final = frozenset(Verb) - _READS - _DELETES
"""The dear ones, of which the design allows twenty for each GiB."""


@dataclass(frozen=True, slots=True)
class Count:
    """Requests of one verb and outcome."""

    requests: int = 0
    nbytes: int = 0
    """Of objects' data sent."""
    seconds: float = 0.0
    """Summed; until the head of each answer."""

    def __add__(self, other: "Count") -> "Count":
        return Count(
            self.requests + other.requests,
            self.nbytes + other.nbytes,
            self.seconds + other.seconds,
        )


Counts = Mapping[tuple[Verb, str], Count]
"""By verb and outcome."""


class Requests:
    """A `Meter` that adds up. Thread-safe; memory is bounded by the bounds it is made with.

    Dollars are an estimate from above: a request that got no answer, or a 503, is counted as if
    it were billed.
    """

    def __init__(
        self, prices: Prices | None = None, *, max_jobs: int = 10_000, max_outcomes: int = 64
    ) -> None:
        """Begin at nothing.

        Args:
            prices: None: those of S3 Standard; `prices_of` knows those of a store.
            max_jobs: what others do is counted as of no job.
            max_outcomes: error codes come from servers, so their number is bounded too.
        """
        self.prices = prices or Prices()
        self._max_jobs = max_jobs
        self._max_outcomes = max_outcomes
        self._lock = threading.Lock()
        self._jobs: dict[str, dict[tuple[Verb, str], Count]] = {NO_JOB: {}}
        self._outcomes: set[str] = {OTHER}

    def __call__(self, verb: Verb, outcome: str, *, key: str, seconds: float, nbytes: int) -> None:
        """Count one request."""
        one = Count(1, nbytes, seconds)
        with self._lock:
            if outcome not in self._outcomes:
                if len(self._outcomes) < self._max_outcomes:
                    self._outcomes.add(outcome)
                else:
                    outcome = OTHER
            job = _job(key)
            if job not in self._jobs:
                if len(self._jobs) <= self._max_jobs:
                    self._jobs[job] = {}
                else:
                    job = NO_JOB
            counts = self._jobs[job]
            counts[verb, outcome] = counts.get((verb, outcome), Count()) + one

    def jobs(self) -> list[str]:
        """Return the jobs that are counted apart, without `NO_JOB`."""
        with self._lock:
            return [job for job in self._jobs if job != NO_JOB]

    def of_job(self, job: str) -> Counts:
        """Return what was counted for a job."""
        with self._lock:
            return dict(self._jobs.get(job, {}))

    def total(self) -> Counts:
        """Return what was counted for all jobs and none, forgotten ones too."""
        found: defaultdict[tuple[Verb, str], Count] = defaultdict(Count)
        with self._lock:
            for counts in self._jobs.values():
                for which, count in counts.items():
                    found[which] += count
        return dict(found)

    def forget(self, job: str) -> Counts:
        """Return a job's counts, and go on as if they were of no job; totals never fall."""
        with self._lock:
            counts = self._jobs.pop(job, {}) if job != NO_JOB else {}
            rest = self._jobs[NO_JOB]
            for which, count in counts.items():
                rest[which] = rest.get(which, Count()) + count
            return dict(counts)

    def dollars(self, counts: Counts | None = None) -> float:
        """Return what requests cost, estimated; None: all of them."""
        counted = self.total() if counts is None else counts
        return sum(self.prices.of(verb) * c.requests for (verb, _), c in counted.items())


def writes(counts: Counts) -> int:
    """Return how many of the requests are of the dear class."""
    return sum(count.requests for (verb, _), count in counts.items() if verb in WRITES)


def _job(key: str) -> str:
    if key.startswith("."):  # of the store itself, such as its probes
        return NO_JOB
    try:
        return job_of(key)
    except ProtocolError:
        return NO_JOB


@contextmanager
def counted(meter: Meter | None, verb: Verb, key: str, nbytes: int = 0) -> Iterator[None]:
    """Tell a meter of what is done inside as of one request."""
    begun = time.perf_counter()
    outcome = "ok"
    try:
        yield
    except BaseException as problem:
        outcome = _outcome(problem)
        raise
    finally:
        if meter is not None:
            seconds = time.perf_counter() - begun
            meter(verb, outcome, key=key, seconds=seconds, nbytes=nbytes)


def _outcome(problem: BaseException) -> str:
    if isinstance(problem, CrossdockError):
        return problem.code
    if isinstance(problem, OSError):
        return errorcode.get(problem.errno or 0, "OSError")
    return type(problem).__name__
