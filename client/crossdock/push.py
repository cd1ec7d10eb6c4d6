"""Getting one frame acked: by the worker it is meant for, or by another."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from crossdock.cancel import Cancel
from crossdock.errors import (
    CrossdockError,
    DataCorrupt,
    ProtocolError,
    QuotaExceeded,
    Unavailable,
)
from crossdock.retry import patiently
from crossdock.wire.crc import BytesLike

if TYPE_CHECKING:
    from crossdock.job import Job


@dataclass(frozen=True, slots=True)
class Ack:
    """A worker's word that it has a frame."""

    worker: str
    url: str


@dataclass(slots=True)
class Push:
    """One frame on its way to `replicas` workers. `run` is called by one thread."""

    job: "Job"
    target: str
    """URL path of the frames of its shuffle."""
    parts: Sequence[BytesLike]
    preferred: Sequence[str]
    """Worker ids, best first."""
    replicas: int
    cancel: Cancel

    def run(self) -> list[Ack]:
        """Push until enough workers have the frame.

        Raises:
            Unavailable: after the deadline.
            Closed: `cancel` was set.
        """
        acks: dict[str, Ack] = {}
        deadline = self.job.cluster.options.deadline_seconds
        patiently(lambda: self._round(acks), deadline_seconds=deadline, cancel=self.cancel)
        return list(acks.values())

    def _round(self, acks: dict[str, Ack]) -> None:
        """Try every worker once, until there are enough acks."""
        cluster = self.job.cluster
        members = cluster.members(fresh=bool(acks), cancel=self.cancel)
        order = [w for w in self.preferred if w in members.reachable]
        order += [w for w in members.writable() if w not in order]
        problem: CrossdockError | None = None
        for _ in range(len(order)):
            if len(acks) >= self.replicas:
                return
            order = [w for w in order if w not in acks]
            if not order:
                break
            order = cluster.load.take(order)
            worker = order.pop(0)
            try:
                url = members.reachable[worker].url
                ack = self._push(url)
                acks[ack.worker] = ack
            except CrossdockError as error:
                if not _is_of_worker(error):
                    raise
                problem = _sooner(problem, error)
            finally:
                cluster.load.done(worker)
        if len(acks) < self.replicas:
            cluster.members(fresh=True, cancel=self.cancel)
            raise problem or Unavailable(
                f"{self.replicas} copies of a frame are asked for, and only {len(acks)} workers "
                "can take one"
            )

    def _push(self, url: str) -> Ack:
        return self.job.ask(url, partial(self._send, url), cancel=self.cancel)

    def _send(self, url: str) -> Ack:
        response = self.job.cluster.pool.request(
            "PUT",
            url,
            self.target,
            body=self.parts,
            wait_for_continue=True,
            cancel=self.cancel,
        ).check()
        with response:
            answer = response.read_json()
        worker = answer.get("worker") if isinstance(answer, dict) else None
        if not isinstance(worker, str):
            raise ProtocolError(f"{url} acked a frame without its worker's id")
        return Ack(worker, url)


def _is_of_worker(error: CrossdockError) -> bool:
    """Whether another worker may take what one refuses: its disk, its quota, a failure of its own.

    A failure that has no class comes as the base class alone.
    """
    kinds = (Unavailable, DataCorrupt, QuotaExceeded)
    return isinstance(error, kinds) or type(error) is CrossdockError


def _sooner(one: CrossdockError | None, other: CrossdockError) -> CrossdockError:
    """Return of two problems the one that waiting mends, and sooner."""
    if not isinstance(other, Unavailable):
        return one or other
    if isinstance(one, Unavailable) and one.retry_after_seconds <= other.retry_after_seconds:
        return one
    return other


@dataclass(slots=True)
class PushLoad:
    """How many frames this process is pushing to each worker: a hot one is relieved by others."""

    _pending: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, preferred: Sequence[str]) -> list[str]:
        """Return the workers in the order to try, and count a push to the first.

        The preferred one, unless it has two more pushes under way than the least busy one.
        """
        with self._lock:
            least = min(preferred, key=lambda w: self._pending.get(w, 0))
            first = preferred[0]
            if self._pending.get(first, 0) >= self._pending.get(least, 0) + 2:
                first = least
            self._pending[first] = self._pending.get(first, 0) + 1
            return [first, *(w for w in preferred if w != first)]

    def done(self, worker: str) -> None:
        """Count a push as ended."""
        with self._lock:
            self._pending[worker] -= 1
