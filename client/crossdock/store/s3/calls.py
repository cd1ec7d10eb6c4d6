"""One request after the other: in turn, counted, repeated where it may be, and explained."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from crossdock.cancel import Cancel, Stop
from crossdock.errors import CrossdockError
from crossdock.retry import patiently
from crossdock.store import bodies
from crossdock.store.api import Meter, ObjectInfo, Source, StoreOptions, Verb
from crossdock.store.errors import ObjectMissing, StoreDenied, StoreUnavailable, StoreUnsure
from crossdock.store.s3.client import ClientBox
from crossdock.store.s3.errors import REPORTED, Failure, Kind, as_error, classify
from crossdock.store.throttle import Throttle
from crossdock.wire.crc import BytesLike

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

T = TypeVar("T")

WRITE_MARK: Final = "crossdock-write"
"""Of an object's metadata: the random name of the write that made it, so that a writer who got no
answer can tell its own object from another's."""

_BAD_BYTES_TRIES: Final = 3
_DENIED_TRIES: Final = 3
"""Of a write: MinIO denies one into a folder that is being emptied (issue 15157 of minio)."""
_LOOK_SECONDS: Final = 5.0
"""How long a writer that got no answer looks whether its object is there."""

_throttles: weakref.WeakValueDictionary[tuple[str, str, str], Throttle] = (
    weakref.WeakValueDictionary()
)
_throttles_lock: Final = threading.Lock()


def shared_throttle(endpoint: str, bucket: str, prefix: str) -> Throttle:
    """Return the throttle that all stores of this process share for one bucket and prefix."""
    with _throttles_lock:
        return _throttles.setdefault((endpoint, bucket, prefix), Throttle())


class Caller:
    """Sends the requests of one store. Thread-safe."""

    def __init__(
        self, bucket: str, prefix: str, options: StoreOptions, meter: Meter | None
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        """Of the store, before every key."""
        self.options = options
        self.throttle = shared_throttle(options.endpoint_url, bucket, prefix)
        self.meter = meter
        self.clients = ClientBox(options)
        self._slots = threading.Semaphore(options.connections)
        self.cancel = Cancel("the store was closed")
        self.stop: Stop | None = None
        """Ends what brings something into being."""

    def stopped_by(self, stop: Stop) -> "Caller":
        """Return the same caller for a writer that may be ended."""
        found = copy(self)
        found.stop = stop
        return found

    def body(self, source: Source) -> bodies.BodyFile:
        """Return the body of a request that may be ended while it is sent."""
        return bodies.BodyFile(source if self.stop is None else _StoppableSource(source, self.stop))

    def call(
        self,
        verb: Verb,
        key: str,
        request: "Callable[[S3Client], T]",
        *,
        nbytes: int = 0,
        repeatable: bool = True,
        recover: Callable[[], T | None] | None = None,
        deadline_seconds: float | None = None,
        cancel: Cancel | None = None,
    ) -> T:
        """Return what one request returns; send it again as long as it may help.

        Args:
            verb: what is asked.
            key: what for; of the store.
            request: sends it once. Raises what botocore does.
            nbytes: of the object, in its body.
            repeatable: it can be sent again although the last one may take effect yet.
            recover: looks whether a write that seems to have failed did take effect after all.
            deadline_seconds: None: the store's.
            cancel: ends the waits, and what comes after them; None: only closing the store does.

        Raises:
            StoreUnsure: the deadline passed, or it is not repeatable, and may have had its effect.
        """
        seconds = self.options.deadline_seconds if deadline_seconds is None else deadline_seconds
        one = _Call(self, verb, key, request, nbytes, repeatable, recover, seconds)
        waits: Stop = cancel or self.cancel
        if one.stop is not None:
            waits = _Woken(waits, one.stop.event)
        try:
            answer = patiently(one, deadline_seconds=seconds, cancel=waits)
        except StoreUnavailable as problem:
            raise one.given_up(problem) from problem
        if isinstance(answer, CrossdockError):
            raise answer
        return answer

    def look(self, key: str, mark: str) -> ObjectInfo | None:
        """Return the object, if it is there and was written under this mark.

        Not to be told is no news: credentials that only write may not look at all.
        """
        with suppress(ObjectMissing, StoreUnavailable, StoreDenied):
            info, found = self.head(key, deadline_seconds=_LOOK_SECONDS)
            return info if found == mark else None
        return None

    def head(
        self, key: str, *, etag: str | None = None, deadline_seconds: float | None = None
    ) -> tuple[ObjectInfo, str]:
        """Return an object's facts, and the mark of who wrote it."""

        def request(client: "S3Client") -> tuple[ObjectInfo, str]:
            if etag is None:
                answer = client.head_object(Bucket=self.bucket, Key=self.prefix + key)
            else:
                answer = client.head_object(
                    Bucket=self.bucket, Key=self.prefix + key, IfMatch=f'"{etag}"'
                )
            info = ObjectInfo(
                key, answer["ContentLength"], answer["ETag"].strip('"'), answer.get("LastModified")
            )
            return info, answer.get("Metadata", {}).get(WRITE_MARK, "")

        return self.call(Verb.HEAD, key, request, deadline_seconds=deadline_seconds)

    def close(self) -> None:
        """End waits, and close connections."""
        self.cancel.set()
        self.clients.close()

    @contextmanager
    def turn(self, longest: float) -> Iterator[float]:
        """Wait for a request's turn, and for a connection; yield the time at which it goes."""
        begun = time.monotonic()
        if not self._slots.acquire(timeout=longest):
            raise StoreUnavailable(
                f"all {self.options.connections} connections are busy", hint="raise connections"
            )
        try:
            yield self.throttle.wait(longest - (time.monotonic() - begun), self.cancel)
        finally:
            self._slots.release()


@dataclass(slots=True)
class _Call(Generic[T]):
    """One call, and what is known of its tries so far."""

    caller: Caller
    verb: Verb
    key: str
    request: "Callable[[S3Client], T]"
    nbytes: int
    repeatable: bool
    recover: Callable[[], T | None] | None
    seconds: float
    doubtful: bool = False
    """A try may have had an effect that nobody told us of."""
    bad_bytes: int = 0
    denials: int = 0
    outdated: bool = False
    """The last try had credentials that are others by now."""
    last: Failure | None = None
    begun: float = field(default_factory=time.monotonic)

    def __call__(self) -> T | CrossdockError:
        """Try once. Return the result, or the final error; raise `Unavailable` to try again."""
        left = max(0.0, self.seconds - (time.monotonic() - self.begun))
        try:
            with self.caller.turn(left) as sent:
                stopped = self._stopped()
                if stopped is not None:
                    return stopped
                answer = self._send(sent)
        except REPORTED as problem:
            self.last = classify(problem, self.verb)
            return self._after(self.last)
        self.caller.throttle.served()
        return answer

    @property
    def stop(self) -> Stop | None:
        """What may end it, if it brings something into being."""
        return self.caller.stop if self.verb in _WRITES else None

    def given_up(self, problem: StoreUnavailable) -> CrossdockError:
        """Return the error for a call whose deadline has passed."""
        if self.doubtful and self.verb in _MAKES_OBJECTS:
            return _unsure(problem)
        return as_error(self.last, self.verb, self.key) if self.last else problem

    def _stopped(self) -> CrossdockError | None:
        """Return why this must not be sent, if so."""
        try:
            if self.stop is not None:
                self.stop.check()
        except CrossdockError as error:
            return error
        return None

    def _send(self, sent: float) -> T:
        client = self.caller.clients.get()
        outcome = "ok"
        begun = time.perf_counter()
        try:
            return self.request(client)
        except REPORTED as problem:
            failure = classify(problem, self.verb)
            outcome = failure.outcome
            if failure.kind is Kind.SLOW:
                self.caller.throttle.refused(sent)
            elif failure.kind in _REFUSALS:
                self.outdated = self.caller.clients.outdated(client)
                if failure.kind is Kind.EXPIRED:
                    self.caller.clients.renew(client)
            raise
        except BaseException as problem:
            outcome = type(problem).__name__
            raise
        finally:
            seconds = time.perf_counter() - begun
            if self.caller.meter is not None:
                self.caller.meter(
                    self.verb, outcome, key=self.key, seconds=seconds, nbytes=self.nbytes
                )

    def _after(self, failure: Failure) -> T | CrossdockError:
        kind = failure.kind
        self.doubtful |= kind in {Kind.AGAIN, Kind.UNANSWERED}
        if self.doubtful and self.recover is not None and kind not in _NO_NEWS:
            found = self.recover()
            if found is not None:
                return found
        error = as_error(failure, self.verb, self.key)
        if kind is Kind.BAD_BYTES:
            self.bad_bytes += 1
            if self.bad_bytes >= _BAD_BYTES_TRIES:
                return error
            raise StoreUnavailable(error.message)
        if kind is Kind.DENIED and self._may_be_let_in():
            raise StoreUnavailable(error.message)
        # An upload that began all the same is found by its key alone, on servers that list none by
        # prefix: its writer has to know that there may be one, so it is not begun once more.
        unknown = {Kind.UNANSWERED, *([Kind.AGAIN] if self.verb is Verb.CREATE_UPLOAD else [])}
        if kind in unknown and not self.repeatable:
            return _unsure(error)
        if kind is Kind.EXPIRED:
            raise StoreUnavailable(error.message)
        if isinstance(error, StoreUnavailable):
            raise error
        return error

    def _may_be_let_in(self) -> bool:
        """Whether what was denied is worth another try."""
        if self.outdated or self.verb not in _WRITES:
            return self.outdated
        self.denials += 1
        return self.denials < _DENIED_TRIES


_REFUSALS: Final = {Kind.DENIED, Kind.EXPIRED}
"""What other credentials may help against."""
_NO_NEWS: Final = {Kind.SLOW, Kind.UNSENT}
"""What says nothing of whether an earlier try had its effect."""
_WRITES: Final = {Verb.PUT, Verb.CREATE_UPLOAD, Verb.UPLOAD_PART, Verb.COMPLETE_UPLOAD}
_MAKES_OBJECTS: Final = {Verb.PUT, Verb.CREATE_UPLOAD, Verb.COMPLETE_UPLOAD}
"""What must be known. A part counts for nothing before the end names it; a delete may come late."""


class _Woken:
    """Waits that somebody else may end; who comes back from one looks by himself."""

    def __init__(self, first: Stop, event: threading.Event) -> None:
        self._first = first
        self.event = event

    def check(self) -> None:
        """Raise what the first one does."""
        self._first.check()


class _StoppableSource:
    """The bytes of a body, as long as its writer may go on."""

    def __init__(self, source: Source, stop: Stop) -> None:
        self._source = source
        self._stop = stop

    @property
    def nbytes(self) -> int:
        return self._source.nbytes

    def read_at(self, offset: int, size: int) -> BytesLike:
        self._stop.check()
        return self._source.read_at(offset, size)


def _unsure(problem: CrossdockError) -> StoreUnsure:
    return StoreUnsure(
        f"{problem.message}; it may have happened, or may happen yet",
        hint="never use this key again",
    )
