"""Several ordered streams of pieces become whole blocks, wherever the pieces of a block lie."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from crossdock.blocks import BlockBatch, Pieces, assemble


class PieceStream(Protocol):
    """Pieces in the order (partition, map, attempt, seq, position), some at a time."""

    pending: "deque[Pieces]"
    """Those at hand."""
    ended: bool
    """Whether no more come."""


S = TypeVar("S", bound=PieceStream)


class Merge(Generic[S]):
    """Takes blocks off streams as soon as no stream can have more of them."""

    def __init__(self, streams: Iterable[S], advance: Callable[[S], None]) -> None:
        """Args: `advance` gets a stream its next pieces; it may replace the stream by others."""
        self.streams = list(streams)
        self._advance = advance

    def round(self) -> list[BlockBatch]:
        """Advance the streams that hold the others up; return the blocks that are whole now."""
        open_ = [s for s in self.streams if not s.ended]
        if open_:
            # While one has nothing at hand, no block is whole: what the others got would pile up.
            behind = [s for s in open_ if not s.pending]
            if not behind:
                keys = [_last_key(s) for s in open_]
                lowest = min(k for k in keys if k is not None)
                behind = [s for s, k in zip(open_, keys, strict=True) if k == lowest]
            for stream in behind:
                self._advance(stream)
        keys = [_last_key(s) for s in self.streams if not s.ended]
        if any(k is None for k in keys):
            return []
        frontier = min((k for k in keys if k is not None), default=None)
        taken = [_take(stream, frontier) for stream in self.streams]
        self.streams = [s for s in self.streams if s.pending or not s.ended]
        return assemble([pieces for pieces in taken if pieces])


def _last_key(stream: PieceStream) -> tuple[int, int] | None:
    """Return the block of the last piece at hand; the stream may still have more of it."""
    return stream.pending[-1].block_key(-1) if stream.pending else None


def _take(stream: PieceStream, frontier: tuple[int, int] | None) -> list[Pieces]:
    """Take the pieces of blocks before `frontier` off a stream; all, if it is None."""
    taken = []
    while stream.pending:
        pieces = stream.pending[0]
        n = len(pieces) if frontier is None else pieces.below(frontier)
        if n:
            taken.append(pieces.cut(0, n))
        if n < len(pieces):
            stream.pending[0] = pieces.cut(n, len(pieces))
            break
        stream.pending.popleft()
    return taken
