"""Objects by parts, in parallel: from a source too long for one request, or as they are written."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Final, Self

from crossdock.errors import ConfigError, CrossdockError
from crossdock.store import bodies
from crossdock.store.api import ObjectInfo, Source
from crossdock.store.errors import ObjectDamaged
from crossdock.store.s3.calls import Caller
from crossdock.store.s3.multipart import MAX_PARTS, Multipart
from crossdock.store.s3.put import Write, put_object, unless_there
from crossdock.wire.crc import BytesLike

PARTS_AT_ONCE: Final = 4
"""Of one object. Four connections fill what one machine's share of a link gives, and bound the
memory of an object that is written bit by bit to five parts."""
_MIB: Final = 2**20


def put_parts(
    caller: Caller,
    threads: ThreadPoolExecutor,
    key: str,
    source: Source,
    crc32c: int | None,
    *,
    if_absent: bool,
) -> ObjectInfo:
    """Write an object of known length by parts."""
    nbytes = max(caller.options.part_bytes, _MIB * -(-source.nbytes // (MAX_PARTS * _MIB)))
    with _Sending(caller, threads, key) as sending:
        for start in range(0, source.nbytes, nbytes):
            size = min(nbytes, source.nbytes - start)
            sending.send(bodies.SliceSource(source, start, size))
        sending.wait()
        if crc32c is not None and sending.multipart.crc32c != crc32c:
            raise ObjectDamaged(f"{key}: its bytes are not those of its checksum")
        return sending.complete(if_absent=if_absent)


class _Sending:
    """A multipart upload some parts of which are under way. Aborted unless completed."""

    def __init__(self, caller: Caller, threads: ThreadPoolExecutor, key: str) -> None:
        self._key = key
        self._threads = threads
        self._under_way: deque[Future[None]] = deque()
        self._number = 0
        self._open = True
        self.multipart = Multipart(caller, key)

    def send(self, part: Source) -> None:
        """Send a part in the background, after an earlier one if too many are under way."""
        self._number += 1
        if self._number > MAX_PARTS:
            raise ConfigError(f"{self._key}: more than {MAX_PARTS} parts", hint="raise part_bytes")
        while len(self._under_way) >= PARTS_AT_ONCE:
            self._under_way.popleft().result()
        self._under_way.append(self._threads.submit(self.multipart.send, self._number, part))

    def wait(self) -> None:
        """Wait until all parts are there."""
        while self._under_way:
            self._under_way.popleft().result()

    def complete(self, *, if_absent: bool) -> ObjectInfo:
        """Make the object."""
        self.wait()
        info = self.multipart.complete(if_absent=if_absent)
        self._open = False
        return info

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._open:
            return
        self._open = False
        for each in self._under_way:  # what is sent after the abort would stay
            each.cancel()
        for each in self._under_way:
            if not each.cancelled():
                each.exception()
        try:
            self.multipart.abort()
        except CrossdockError as problem:
            if error is None:
                raise
            error.add_note(f"its upload could not be aborted and is unfinished: {problem}")


class S3Upload:
    """An object of unknown length. See `crossdock.store.api.Upload`.

    `conditional` tells whether the store decides put-if-absent; it is asked if that matters.
    What fits one part goes by one request, so a small object leaves nothing unfinished behind.
    """

    def __init__(
        self,
        caller: Caller,
        threads: ThreadPoolExecutor,
        key: str,
        *,
        conditional: Callable[[], bool],
    ) -> None:
        self._caller = caller
        self._threads = threads
        self._key = key
        self._conditional = conditional
        self._part = bytearray()
        self._sending: _Sending | None = None

    def write(self, data: BytesLike) -> None:
        """Append bytes."""
        left = memoryview(data).cast("B")
        limit = self._caller.options.part_bytes
        while left:
            taken = left[: limit - len(self._part)]
            self._part += taken
            left = left[len(taken) :]
            if len(self._part) == limit and left:
                self._send()

    def complete(self, *, if_absent: bool = False) -> ObjectInfo:
        """Make the object of what was written."""
        if self._sending is None:
            source = bodies.BufferSource(self._part)
            write: Write = partial(put_object, self._caller, self._key, source, None)
            return unless_there(self._caller, self._key, write, self._conditional, if_absent)
        with self._sending as sending:
            self._send()
            write = sending.complete
            return unless_there(self._caller, self._key, write, self._conditional, if_absent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._part = bytearray()
        if self._sending is not None:
            self._sending.__exit__(kind, error, trace)

    def _send(self) -> None:
        if self._sending is None:
            self._sending = _Sending(self._caller, self._threads, self._key)
        full, self._part = self._part, bytearray()
        self._sending.send(bodies.BufferSource(full))
