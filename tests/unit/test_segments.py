"""Segments hold every piece once, in order, within their bound, with a right index and checksum."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.errors import ConfigError
from crossdock.store import segment
from crossdock.store.errors import ObjectDamaged
from crossdock.views import ShuffleKey
from crossdock.wire import crc, frame, tables
from crossdock.wire.blocks import COLUMN_BYTES, HEADER_BYTES, BatchHeader, PieceColumns
from crossdock.wire.frame import Columns, FrameHeader
from crossdock_worker import segments
from crossdock_worker.rows import Snapshot
from crossdock_worker.segments import SegmentPlan
from crossdock_worker.shuffle_log import ShuffleLog

PARTITIONS = 6
Piece = tuple[int, int, int, int, bytes]
"""(partition, map, seq, position, data)."""


@dataclass
class Example:
    snapshot: Snapshot
    pieces: list[Piece]
    """In the order of segments."""


def logged(directory: Path, frames: dict[tuple[int, int], list[tuple[int, bytes]]]) -> Example:
    """Write frames (map, seq) → pieces (partition, data) to a log as a worker does."""
    log = ShuffleLog.create(directory, ShuffleKey("job", "shuffle"))
    pieces = []
    for (map_id, seq), content in frames.items():
        ordered = sorted(content, key=lambda piece: piece[0])
        payload = b"".join(data for _, data in ordered)
        head, _ = frame.build(
            payload=payload,
            partition=np.array([p for p, _ in ordered], np.uint32),
            length=np.array([len(d) for _, d in ordered], np.uint32),
            rows=np.ones(len(ordered), np.uint32),
            partitions=PARTITIONS,
            map_id=map_id,
            attempt=1,
            seq=seq,
            writer=bytes([map_id]) * 16,
            count=0,
        )
        header = FrameHeader.decode(head[:HEADER_SIZE])
        with log.reserve(header) as reservation:
            log.payload.write(reservation.payload_at, payload)
            log.commit(header, Columns.decode(header, head[HEADER_SIZE:]), reservation)
        pieces += [(p, map_id, seq, i, d) for i, (p, d) in enumerate(ordered)]
    keys = np.sort(tables.frame_keys(log.frames()), order=("map", "attempt", "seq"))
    return Example(log.snapshot(keys)[0], sorted(pieces))


HEADER_SIZE = frame.HEADER_BYTES


def all_plans(example: Example, segment_bytes: int) -> list[SegmentPlan]:
    plans = []
    cursor = None
    while True:
        plan = segments.plan(
            example.snapshot, partitions=PARTITIONS, cursor=cursor, segment_bytes=segment_bytes
        )
        if plan is None:
            return plans
        plans.append(plan)
        cursor = plan.cursor


def bytes_of(plan: SegmentPlan, step: int) -> bytes:
    """Read a segment's bytes in pieces of `step`."""
    size = plan.source.nbytes
    return b"".join(
        bytes(plan.source.read_at(at, min(step, size - at))) for at in range(0, size, step)
    )


def pieces_of(plan: SegmentPlan, data: bytes) -> list[Piece]:
    """Read a segment's pieces back as a reader does, by its directory."""
    found = []
    for row in plan.batches:
        batch = data[int(row["offset"]) : int(row["offset"]) + int(row["nbytes"])]
        header = BatchHeader.decode(batch[:HEADER_BYTES])
        begin = HEADER_BYTES + header.pieces * COLUMN_BYTES
        columns = PieceColumns.decode(header.pieces, batch[HEADER_BYTES:begin])
        payload = batch[begin:]
        assert len(payload) == header.payload_bytes
        assert crc.extend(0, payload) == crc.combined(columns.crc, columns.length)
        assert header.pieces == row["pieces"]
        assert columns.partition[0] == row["first_partition"]
        assert columns.partition[-1] == row["last_partition"]
        assert columns.map_id.min() == row["first_map"]
        assert columns.map_id.max() == row["last_map"]
        begins = (columns.ends - columns.length).tolist()
        for i, (at, n) in enumerate(zip(begins, columns.length.tolist(), strict=True)):
            number = (columns.partition[i], columns.map_id[i], columns.seq[i], columns.position[i])
            found.append((*map(int, number), payload[at : at + n]))
    return found


@st.composite
def contents(draw: st.DrawFn) -> dict[tuple[int, int], list[tuple[int, bytes]]]:
    size = st.sampled_from([0, 1, 7, 100, 700])
    piece = st.tuples(st.integers(0, PARTITIONS - 1), size)
    found = {}
    for map_id in range(draw(st.integers(0, 4))):
        for seq in range(draw(st.integers(1, 2))):
            content = draw(st.lists(piece, max_size=8))
            found[map_id, seq] = [
                (p, bytes([map_id, seq, i]) * n) for i, (p, n) in enumerate(content)
            ]
    return found


@given(
    frames=contents(),
    segment_bytes=st.integers(3000, 20_000),
    step=st.sampled_from([13, 512, 4096]),
    small=st.sampled_from([1, 300, 10_000]),
)
def test_segments_hold_every_piece_once_in_order_and_within_their_bound(
    tmp_path_factory: pytest.TempPathFactory,
    frames: dict[tuple[int, int], list[tuple[int, bytes]]],
    segment_bytes: int,
    step: int,
    small: int,
) -> None:
    example = logged(tmp_path_factory.mktemp("log"), frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "SMALL_BATCH_BYTES", small)
        patch.setattr(segment, "LARGE_BATCH_BYTES", 4 * small)
        plans = all_plans(example, segment_bytes)
    found = []
    for plan in plans:
        data = bytes_of(plan, step)
        assert len(data) <= segment_bytes
        assert crc.extend(0, data) == plan.crc32c
        mine = pieces_of(plan, data)
        found += mine
        rows = example.snapshot.rows
        inside = {(int(r["map"]), int(r["seq"])) for r in rows[plan.members]}
        assert inside == {(m, s) for _, m, s, _, _ in mine}
        assert (segment.directory(data, where="it") == plan.batches).all()
    assert found == example.pieces
    assert [plan.end for plan in plans] == [False] * (len(plans) - 1) + [True] * bool(plans)


def test_a_piece_that_fits_no_segment_is_refused_with_the_remedy(tmp_path: Path) -> None:
    example = logged(tmp_path / "log", {(0, 0): [(0, bytes(5000))]})
    with pytest.raises(ConfigError, match=r"piece of 5000 bytes.*--segment-bytes"):
        all_plans(example, 4096)


def test_a_large_partition_goes_on_in_the_next_segment(tmp_path: Path) -> None:
    frames = {(m, 0): [(2, bytes([m]) * 1000)] for m in range(20)}
    plans = all_plans(logged(tmp_path / "log", frames), 8000)
    assert len(plans) >= 3
    assert all((p.batches["first_partition"] == 2).all() for p in plans)


def cuts(sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    partition = np.array([p for p, _ in sizes], np.uint32)
    return segment.cut_batches(partition, np.array([n for _, n in sizes], np.uint32))


MIB = 2**20


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([(0, 10), (1, 10)], [(0, 2)]),
        ([(0, MIB), (1, 10)], [(0, 1), (1, 2)]),
        ([(0, MIB // 2), (1, MIB // 2), (2, 5)], [(0, 2), (2, 3)]),
        ([(0, MIB // 2), (1, MIB // 2), (1, 7), (2, 5)], [(0, 3), (3, 4)]),
        ([(0, 5 * MIB), (0, 5 * MIB)], [(0, 1), (1, 2)]),
        ([(0, 20 * MIB), (0, 1)], [(0, 1), (1, 2)]),
        ([(0, 0), (0, 0), (5, 0)], [(0, 3)]),
    ],
)
def test_batches_end_with_partitions_once_they_are_large_enough(
    sizes: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    assert cuts(sizes) == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 1, MIB // 3, 2 * MIB, 9 * MIB]))))
def test_batches_are_all_pieces_in_order_and_none_is_large_but_by_one_piece(
    sizes: list[tuple[int, int]],
) -> None:
    sizes.sort()
    found = cuts(sizes)
    assert [i for a, b in found for i in range(a, b)] == list(range(len(sizes)))
    for a, b in found:
        assert b - a == 1 or sum(n for _, n in sizes[a:b]) <= segment.LARGE_BATCH_BYTES


def test_a_damaged_end_of_a_segment_is_told(tmp_path: Path) -> None:
    [plan] = all_plans(logged(tmp_path / "log", {(0, 0): [(1, b"abc")]}), 4096)
    data = bytes_of(plan, 999)
    for at in range(len(data) - 60, len(data)):
        hurt = bytearray(data)
        hurt[at] ^= 4
        with pytest.raises(ObjectDamaged):
            segment.directory(hurt, where="it")
    with pytest.raises(ObjectDamaged, match="cut short"):
        segment.directory(data[-4:], where="it")
