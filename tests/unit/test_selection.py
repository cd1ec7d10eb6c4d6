"""What a read selects, against a naive model over lists of pieces."""

import tracemalloc
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.wire.blocks import Cursor
from crossdock_worker import selection
from crossdock_worker.rows import ROW, Snapshot
from crossdock_worker.selection import Selection

PARTITIONS = 7
ALL_MAPS = (0, 2**32)


class Piece(NamedTuple):
    """In the order of reads."""

    partition: int
    map_id: int
    attempt: int
    seq: int
    position: int
    length: int
    rows: int
    crc: int
    offset: int
    """In the payload log."""


@dataclass
class Example:
    snapshot: Snapshot
    pieces: list[Piece]
    """All of them, in the order of reads."""


def build(frames: dict[tuple[int, int, int], list[tuple[int, int]]], gap: int = 3) -> Example:
    """Lay frames out as a log does, not in their own order, with gaps between them."""
    rows = np.zeros(len(frames), ROW)
    index: list[int] = [0xDEAD] * gap
    pieces: list[Piece] = []
    end = gap
    keys = sorted(frames)
    for place in sorted(range(len(keys)), key=lambda i: (i * 7919) % 31):
        map_id, attempt, seq = keys[place]
        content = sorted(frames[keys[place]], key=lambda piece: piece[0])
        row = rows[place]
        row["map"], row["attempt"], row["seq"], row["pieces"] = map_id, attempt, seq, len(content)
        row["payload_bytes"] = sum(n for _, n in content)
        row["payload_at"], row["index_at"] = end, 4 * len(index)
        partition, length = [p for p, _ in content], [n for _, n in content]
        count, crc = [n % 5 for n in length], [1000 * place + i for i in range(len(content))]
        ends = np.cumsum(length).tolist()
        for i, (p, n) in enumerate(content):
            offset = end + ends[i] - n
            pieces.append(Piece(p, map_id, attempt, seq, i, n, count[i], crc[i], offset))
        index += [*partition, *length, *count, *crc, *ends, *[0xDEAD] * (gap * len(content) % 4)]
        end += sum(length) + gap
    snapshot = Snapshot(rows, np.empty(0, np.uint8), np.array([*index, 0xDEAD], np.uint32))
    return Example(snapshot, sorted(pieces))


@pytest.fixture(params=[None, 1, 4], ids=["any pieces", "1 piece", "4 pieces"])
def few_pieces_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow how many pieces one look takes, so that small examples are cut, too."""
    if request.param is not None:
        monkeypatch.setattr(selection, "_MIN_PIECES", 1)
        monkeypatch.setattr(selection, "_MAX_PIECES", request.param)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    lengths = st.sampled_from([0, 0, 1, 2, 9, 50])
    content = st.lists(st.tuples(st.integers(0, PARTITIONS - 1), lengths), max_size=12)
    maps = draw(st.dictionaries(st.integers(0, 6), st.integers(1, 3), max_size=5))
    return build(
        {(m, 10 - m, s): draw(content) for m, count in maps.items() for s in range(count)},
        draw(st.integers(0, 3)),
    )


ranges = st.tuples(st.integers(0, PARTITIONS), st.integers(0, PARTITIONS)).map(sorted).map(tuple)


def in_range(example: Example, partitions: tuple[int, int], maps: tuple[int, int]) -> list[Piece]:
    return [
        p
        for p in example.pieces
        if partitions[0] <= p.partition < partitions[1] and maps[0] <= p.map_id < maps[1]
    ]


def pieces_of(chosen: Selection) -> list[Piece]:
    c = chosen.columns
    columns = (c.partition, c.map_id, c.attempt, c.seq, c.position, c.length, c.rows, c.crc,
               chosen.offsets)  # fmt: skip
    return [Piece(*values) for values in zip(*(x.tolist() for x in columns), strict=True)]


def check_batch(chosen: Selection, left: list[Piece], max_bytes: int) -> list[Piece]:
    """Check one batch of what is left to read; return what is left then."""
    found = pieces_of(chosen)
    taken = sorted(found)
    assert taken == left[: len(taken)], "not the next pieces in the order of reads"
    assert found == sorted(found, key=lambda p: p[1:5]), "not by frame and position"
    rest = left[len(taken) :]
    assert taken or not left, "no piece, though there are some"
    assert len(taken) <= 1 or sum(p.length for p in taken) <= max_bytes
    if chosen.end:
        assert not rest, "an end before the end"
    return rest


def check_runs(chosen: Selection, skip: int) -> None:
    """Check that the runs are the batch's bytes, without the first `skip`, and have no seams."""
    places = [p.offset + i for p in pieces_of(chosen) for i in range(p.length)][skip:]
    starts, lengths = chosen.runs(skip)
    runs = list(zip(starts.tolist(), lengths.tolist(), strict=True))
    assert [a + i for a, n in runs for i in range(n)] == places
    assert all(n > 0 for _, n in runs)
    assert all(a + n != b for (a, n), (b, _) in pairwise(runs))


@pytest.mark.usefixtures("few_pieces_at_once")
@given(examples(), ranges, ranges, st.sampled_from([1, 2, 10, 60, 10**6]), st.integers(0, 40))
def test_batches_add_up_to_the_range(
    example: Example,
    partitions: tuple[int, int],
    maps: tuple[int, int],
    max_bytes: int,
    skip: int,
) -> None:
    left = in_range(example, partitions, maps)
    cursor, ended = None, False
    while not ended:
        chosen = selection.select(
            example.snapshot, partitions=partitions, maps=maps, cursor=cursor, max_bytes=max_bytes
        )
        before = len(left)
        left = check_batch(chosen, left, max_bytes)
        check_runs(chosen, 0)
        check_runs(chosen, min(skip, sum(p.length for p in pieces_of(chosen))))
        ended = chosen.end
        if not ended:
            assert len(left) < before, "no progress"
            last = max(pieces_of(chosen))
            cursor = Cursor(*last[:4], last.position + 1)
    assert not left


@pytest.mark.usefixtures("few_pieces_at_once")
@given(examples(), ranges, st.data(), st.sampled_from([1, 30, 10**6]))
def test_a_read_goes_on_at_any_cursor(
    example: Example, partitions: tuple[int, int], data: st.DataObject, max_bytes: int
) -> None:
    """Also at cursors that no piece has: another holder serves other frames of the same order."""
    cursor = data.draw(
        st.builds(
            Cursor,
            st.integers(0, PARTITIONS),
            st.integers(0, 7),
            st.integers(3, 11),
            st.integers(0, 3),
            st.integers(0, 13),
        )
    )
    fields = (cursor.partition, cursor.map_id, cursor.attempt, cursor.seq, cursor.position)
    left = [p for p in in_range(example, partitions, ALL_MAPS) if p[:5] >= fields]
    chosen = selection.select(
        example.snapshot, partitions=partitions, maps=ALL_MAPS, cursor=cursor, max_bytes=max_bytes
    )
    check_batch(chosen, left, max_bytes)


@pytest.mark.usefixtures("few_pieces_at_once")
@given(examples(), ranges, st.data())
def test_the_cursor_behind_each_piece_begins_at_the_next(
    example: Example, partitions: tuple[int, int], data: st.DataObject
) -> None:
    wanted = in_range(example, partitions, ALL_MAPS)
    if wanted:
        at = data.draw(st.integers(0, len(wanted) - 1))
        cursor = Cursor(*wanted[at][:4], wanted[at].position + 1)
        chosen = selection.select(
            example.snapshot,
            partitions=partitions, maps=ALL_MAPS, cursor=cursor, max_bytes=10**9,
        )  # fmt: skip
        check_batch(chosen, wanted[at + 1 :], 10**9)


Sizes = dict[tuple[int, int], tuple[int, int]]


def naive_blocks(example: Example) -> Sizes:
    """Return {(partition, map): (bytes, rows)}."""
    found: Sizes = defaultdict(lambda: (0, 0))
    for p in example.pieces:
        size, rows = found[p.partition, p.map_id]
        found[p.partition, p.map_id] = (size + p.length, rows + p.rows)
    return found


@pytest.mark.usefixtures("few_pieces_at_once")
@given(examples())
def test_statistics_equal_the_model(example: Example) -> None:
    stats = selection.statistics(example.snapshot, PARTITIONS)
    blocks = naive_blocks(example)
    for p in range(PARTITIONS):
        mine = [size for (partition, _), size in blocks.items() if partition == p]
        expected = (sum(b for b, _ in mine), sum(r for _, r in mine), len(mine))
        assert stats[p].tolist() == expected


@pytest.mark.usefixtures("few_pieces_at_once")
@given(examples(), ranges, st.integers(1, 30))
def test_block_sizes_equal_the_model(
    example: Example, partitions: tuple[int, int], max_blocks: int
) -> None:
    sizes: list[tuple[int, ...]] = []
    first, last = partitions
    while first < last:
        page, through = selection.block_sizes(
            example.snapshot, (first, last), max_blocks=max_blocks
        )
        assert first < through <= last
        assert len(page) <= max_blocks or through == first + 1
        assert set(page["partition"].tolist()) <= set(range(first, through))
        sizes += page.tolist()
        first = through
    expected = [
        (p, m, size, rows)
        for (p, m), (size, rows) in sorted(naive_blocks(example).items())
        if partitions[0] <= p < partitions[1]
    ]
    assert sizes == expected


@pytest.mark.parametrize("pieces", [1, 4_096, 4_097, 300_000])
def test_more_pieces_than_one_look_takes(pieces: int) -> None:
    """The bound on pieces cuts batches, and must not be taken for the end."""
    example_ = build({(0, 0, 0): [(3, 1)] * pieces, (1, 0, 0): [(0, 2), (6, 1)]})
    cursor, seen, last = None, 0, (0, 0, 0, 0, -1)
    for _ in range(1000):
        chosen = selection.select(
            example_.snapshot, partitions=(0, PARTITIONS), maps=ALL_MAPS, cursor=cursor,
            max_bytes=100_000,
        )  # fmt: skip
        found = sorted(pieces_of(chosen))
        assert found[0][:5] > last
        last = found[-1][:5]
        seen += len(found)
        if chosen.end:
            break
        cursor = Cursor(*last[:4], last[4] + 1)
    assert seen == pieces + 2


@pytest.mark.parametrize("length", [0, 1])
def test_a_small_batch_of_a_frame_with_many_pieces_is_small(length: int) -> None:
    """All of one partition: nothing but the bound on pieces ends a batch of empty ones."""
    example_ = build({(0, 0, 0): [(0, 3)], (1, 0, 0): [(3, length)] * 300_000})
    chosen = selection.select(
        example_.snapshot, partitions=(1, PARTITIONS), maps=ALL_MAPS, cursor=None, max_bytes=1
    )
    assert not chosen.end
    assert 1 <= len(chosen.offsets) <= 4_096


def test_an_answer_counts_with_its_index_where_that_is_the_most() -> None:
    few = build({(0, 0, 0): [(0, 1_000)] * 100}).snapshot
    many = build({(0, 0, 0): [(0, 0)] * 300_000}).snapshot
    assert selection.answer_bytes(few, 1) == 4_000
    assert selection.answer_bytes(few, 2**20) == 2**20
    assert selection.answer_bytes(many, 1) == 4_096 * 40
    assert selection.answer_bytes(many, 2**20) == 262_144 * 40


def test_many_maps_with_pieces_in_few_partitions() -> None:
    """Empty partitions at the beginning of a range must not end it."""
    frames = {(m, 0, 0): [(PARTITIONS - 1, 10)] * 3 for m in range(3000)}
    example_ = build(frames)
    chosen = selection.select(
        example_.snapshot, partitions=(0, PARTITIONS), maps=ALL_MAPS, cursor=None, max_bytes=100
    )
    assert len(chosen.offsets) == 10
    assert not chosen.end


def test_blocks_of_many_pieces_are_counted_once() -> None:
    """Statistics are made of so many pieces at a time, wherever that cuts a map or a frame."""
    frames = {
        (m, 0, s): [(p, 1) for p in range(PARTITIONS)] * 12_000 for m in range(2) for s in range(2)
    }
    example_ = build(frames)
    stats = selection.statistics(example_.snapshot, PARTITIONS)
    assert stats["blocks"].tolist() == [2] * PARTITIONS
    assert stats["bytes"].tolist() == [48_000] * PARTITIONS


def test_one_map_with_very_many_pieces_takes_little_memory() -> None:
    pieces, frames = 2_000_000, 2
    rows = np.zeros(frames, ROW)
    rows["seq"], rows["pieces"] = range(frames), pieces
    rows["index_at"] = np.arange(frames) * 20 * pieces
    index = np.ones((frames, 5, pieces), np.uint32)
    index[:, 0] = np.arange(pieces) // (pieces // PARTITIONS + 1)
    snapshot = Snapshot(rows, np.empty(0, np.uint8), index.reshape(-1))
    tracemalloc.start()
    try:
        stats = selection.statistics(snapshot, PARTITIONS)
        sizes, _ = selection.block_sizes(snapshot, (0, PARTITIONS), max_blocks=10**9)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20
    assert stats["blocks"].tolist() == [1] * PARTITIONS
    assert int(stats["bytes"].sum()) == int(sizes["bytes"].sum()) == frames * pieces
    assert sizes["bytes"].tolist() == stats["bytes"].tolist()
