"""Buffered pieces become a frame's contents: sorted by partition, in the order of writing."""

import random

import numpy as np
import pytest

from crossdock.framing import MAX_PIECES, FrameBuffer, Run
from crossdock.wire.names import U32_MAX

Piece = tuple[int, bytes, int]
"""(partition, data, rows)."""


def run_of(pieces: list[Piece]) -> Run:
    return Run(
        np.array([p for p, _, _ in pieces], np.int64),
        np.array([len(data) for _, data, _ in pieces], np.int64),
        np.array([rows for _, _, rows in pieces], np.int64),
        b"".join(data for _, data, _ in pieces),
    )


def contents(run: Run) -> list[Piece]:
    ends = np.cumsum(run.length).tolist()
    return [
        (p, bytes(run.payload[b - n : b]), rows)
        for p, b, n, rows in zip(
            run.partition.tolist(), ends, run.length.tolist(), run.rows.tolist(), strict=True
        )
    ]


def joined(pieces: list[Piece]) -> list[Piece]:
    """Return one piece a partition, rising, its parts in the order of writing."""
    found: dict[int, tuple[bytes, int]] = {}
    for partition, data, rows in pieces:
        before, count = found.get(partition, (b"", 0))
        found[partition] = (before + data, count + rows)
    return [(p, data, rows) for p, (data, rows) in sorted(found.items())]


@pytest.mark.parametrize("seed", range(60))
def test_writes_and_batches_in_any_order(seed: int) -> None:
    random_ = random.Random(seed)
    buffer, written = FrameBuffer(), []
    for _ in range(2):  # a buffer is used again after it was taken
        written.clear()
        for _ in range(random_.randrange(1, 9)):
            pieces = [
                (
                    random_.randrange(5),
                    random_.randbytes(random_.randrange(4)),
                    random_.randrange(9),
                )
                for _ in range(random_.randrange(1, 6))
            ]
            if random_.random() < 0.5:
                pieces.sort(key=lambda piece: piece[0])
                buffer.add_run(run_of(pieces))
            else:
                for piece in pieces:
                    buffer.add(*piece)
            written += pieces
        assert buffer.pieces == len(written)
        assert buffer.nbytes == sum(len(data) for _, data, _ in written)
        assert contents(buffer.take()) == joined(written)
        assert (buffer.pieces, buffer.nbytes) == (0, 0)


def test_neighbours_in_one_buffer_are_not_taken_for_neighbours_in_another() -> None:
    """Where one run ends another may go on at the same offset of its own bytes."""
    buffer = FrameBuffer()
    buffer.add_run(run_of([(0, b"ab", 0)]))
    buffer.add_run(run_of([(0, b"xy", 0), (1, b"cd", 0)]))
    buffer.add_run(run_of([(0, b"zz", 0)]))
    assert contents(buffer.take()) == [(0, b"abxyzz", 0), (1, b"cd", 0)]


@pytest.mark.parametrize(("rows", "pieces"), [(U32_MAX - 1, 1), (U32_MAX, 2)])
def test_rows_of_a_piece_fit_32_bits(rows: int, pieces: int) -> None:
    buffer = FrameBuffer()
    buffer.add(0, b"a", rows)
    buffer.add(0, b"b", 1)
    found = buffer.take()
    assert len(found.partition) == pieces
    assert int(found.rows.sum()) == rows + 1
    assert bytes(found.payload) == b"ab"


def test_the_bound_of_pieces_keeps_an_index_of_4_mib() -> None:
    assert MAX_PIECES * 16 == 4 * 2**20
