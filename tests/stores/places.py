"""What all tests of stores use: where stores are, sources, and whole reads."""

import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from crossdock.store.api import Meter, Source, Store, StoreOptions, Verb
from crossdock.wire.crc import BytesLike

PIECE_BYTES = 2**18

OpenStore = Callable[[StoreOptions, Meter | None], Store]


@dataclass
class Place:
    """A kind of store, with an empty folder of its own for one test."""

    kind: str
    open: OpenStore
    remote: bool = False
    """Behind HTTP: each call is a request of S3's."""
    shape: StoreOptions = field(default_factory=StoreOptions)
    """The options that it needs to be found."""

    def __post_init__(self) -> None:
        self._stack = ExitStack()

    def store(self, options: StoreOptions | None = None, meter: Meter | None = None) -> Store:
        """Return an open store, closed after the test."""
        found = self.open(options or self.shape, meter)
        self._stack.callback(found.close)
        return found

    def close(self) -> None:
        self._stack.close()


class Tally:
    """A meter that remembers all."""

    def __init__(self) -> None:
        self.seen: list[tuple[Verb, str, str, int]] = []
        self._lock = threading.Lock()

    def __call__(self, verb: Verb, outcome: str, *, key: str, seconds: float, nbytes: int) -> None:
        assert seconds >= 0
        with self._lock:
            self.seen.append((verb, outcome, key, nbytes))

    def verbs(self, outcome: str | None = None) -> list[Verb]:
        return [verb for verb, found, _, _ in self.seen if outcome in {None, found}]

    def clear(self) -> None:
        with self._lock:
            self.seen.clear()


class RandomSource:
    """Bytes made where they are read, so that a test of memory needs none itself."""

    def __init__(self, nbytes: int, seed: int = 0) -> None:
        self.nbytes = nbytes
        self.longest_read = 0
        self._block = random.Random(seed).randbytes(65_521)  # a prime: no piece repeats in step
        self._lock = threading.Lock()

    def read_at(self, offset: int, size: int) -> bytes:
        with self._lock:
            self.longest_read = max(self.longest_read, size)
        first = offset % len(self._block)
        repeats = (first + size) // len(self._block) + 1
        return (self._block * repeats)[first : first + size]


def read(
    store: Store, key: str, start: int = 0, stop: int | None = None, *, etag: str | None = None
) -> bytes:
    """Return all bytes of a range."""
    with store.get(key, start, stop, etag=etag) as reading:
        found = bytearray(reading.nbytes)
        view, at = memoryview(found), 0
        while count := reading.read_into(view[at : at + PIECE_BYTES] or memoryview(bytearray(1))):
            at += count
        assert at == reading.nbytes
        return bytes(found)


def keys(store: Store, prefix: str = "", *, after: str = "") -> list[str]:
    """Return the listed keys."""
    return [info.key for info in store.list(prefix, after=after)]


def whole(source: Source | BytesLike) -> bytes:
    """Return all bytes of a body."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    return bytes(source.read_at(0, source.nbytes))
