"""A worker that delivers less, more or other than it said is found out, never read in silence."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from support import expected, options, read, write
from tamper import Change, Passing, Tampered, tampered

import crossdock
from crossdock import ProtocolError, Shuffle
from crossdock.blocks import BlockBatch
from crossdock.sums import Delivered, Promise
from crossdock.wire import blocks, tables
from crossdock.wire.blocks import BatchHeader, PieceColumns
from harness import WorkerProcess

WINNERS = {0: 0, 1: 0, 2: 0}
EMPTY = 3
"""A partition whose blocks have neither bytes nor rows."""


@pytest.fixture
def proxy(worker: WorkerProcess) -> Iterator[Tampered]:
    with tampered(worker.url) as found:
        yield found


@pytest.fixture
def shuffle(proxy: Tampered, job_uid: str) -> Iterator[Shuffle]:
    with (
        crossdock.connect([proxy.url], options=options(deadline_seconds=1)) as cluster,
        cluster.job(job_uid, owner="runner") as job,
    ):
        found = job.shuffle("words", partitions=4)
        for map_id in WINNERS:
            with found.writer(map_id=map_id, attempt=0) as writer:
                for p in (0, 2):
                    writer.write(p, bytes([map_id + 1]) * 50, rows=p + 1)
                writer.write(EMPTY, b"")
        yield found
        job.end()


def rebuilt(answer: Passing, keep: np.ndarray, rows: np.ndarray | None = None) -> Passing:
    """Return a batch with some of its pieces only, or other rows, and all checksums right."""
    header = BatchHeader.decode(answer.body[: blocks.HEADER_BYTES])
    at = blocks.HEADER_BYTES + header.pieces * blocks.COLUMN_BYTES
    columns = PieceColumns.decode(header.pieces, answer.body[blocks.HEADER_BYTES : at])
    ends = columns.ends
    pieces = [answer.body[at + ends[i] - columns.length[i] : at + ends[i]] for i in keep]
    taken = columns.take(keep)
    if rows is not None:
        taken = PieceColumns(
            taken.partition, taken.map_id, taken.attempt, taken.seq, taken.position,
            taken.length, rows, taken.crc,
        )  # fmt: skip
    head = blocks.encode_head(taken, end=header.end, skip=0)
    return answer.but(body=head + b"".join(pieces))


def of_batches(change: Callable[[Passing, PieceColumns], Passing]) -> Change:
    def apply(answer: Passing) -> Passing:
        if "/blocks?" not in answer.target:
            return answer
        count = BatchHeader.decode(answer.body[: blocks.HEADER_BYTES]).pieces
        return change(answer, PieceColumns.decode(count, answer.body[blocks.HEADER_BYTES :]))

    return apply


def without(partition: int, map_id: int) -> Change:
    return of_batches(
        lambda answer, c: rebuilt(
            answer, np.flatnonzero((c.partition != partition) | (c.map_id != map_id))
        )
    )


RANGES = [
    ({}, "partition"),
    ({"partitions": range(4), "maps": range(3)}, "partition"),
    ({"maps": range(1, 3)}, "map"),
    ({"maps": range(1, 2)}, "map"),
    ({"partitions": range(2, 4), "maps": range(1, 2)}, "partition"),
    ({"partitions": range(2, 3)}, "partition"),
]


@pytest.mark.parametrize(("ranges", "kind"), RANGES)
def test_a_block_less_is_named(
    proxy: Tampered, shuffle: Shuffle, ranges: dict[str, range], kind: str
) -> None:
    view = shuffle.view(WINNERS)
    whole = read(view, **ranges)
    assert len(whole) == sum(
        p in ranges.get("partitions", range(4)) and m in ranges.get("maps", range(3))
        for p in (0, 2, 3) for m in WINNERS
    )  # fmt: skip
    who, total = (2, 50 * len(ranges.get("maps", range(3)))) if kind == "partition" else (
        1, 100)  # fmt: skip
    with proxy.changing(without(2, 1)), pytest.raises(
        ProtocolError, match=f"{kind} {who} has {total} bytes, and {total - 50} came"
    ):  # fmt: skip
        read(view, **ranges)


@pytest.mark.parametrize("ranges", [r for r, kind in RANGES[:-1] if kind == "partition"])
def test_an_empty_block_less_is_named(
    proxy: Tampered, shuffle: Shuffle, ranges: dict[str, range]
) -> None:
    view = shuffle.view(WINNERS)
    count = len(ranges.get("maps", range(3)))
    with proxy.changing(without(EMPTY, 1)), pytest.raises(
        ProtocolError, match=f"partition {EMPTY} has {count} blocks, and {count - 1} came"
    ):  # fmt: skip
        read(view, **ranges)


@pytest.mark.parametrize(("ranges", "kind"), RANGES)
def test_other_rows_are_named(
    proxy: Tampered, shuffle: Shuffle, ranges: dict[str, range], kind: str
) -> None:
    view = shuffle.view(WINNERS)
    change = of_batches(
        lambda answer, c: rebuilt(
            answer, np.arange(len(c.rows)), c.rows + ((c.partition == 2) & (c.map_id == 1))
        )
    )
    with proxy.changing(change), pytest.raises(ProtocolError, match=f"{kind} . has . rows, and"):
        read(view, **ranges)


def test_a_block_of_another_partition_is_named(proxy: Tampered, shuffle: Shuffle) -> None:
    """The totals would be right: partition 0's blocks come where 2's were asked for."""
    view = shuffle.view(WINNERS)

    def other(answer: Passing) -> Passing:
        if "/blocks?" not in answer.target:
            return answer
        target = answer.target.replace("partitions=2-3", "partitions=0-1")
        with view.shuffle.job.cluster.pool.call("GET", proxy.url, target) as response:
            return answer.but(body=response.read())

    with proxy.changing(
        lambda a: other(a) if "partitions=2-3" in a.target else a
    ), pytest.raises(ProtocolError, match="of a partition that was not asked for"):  # fmt: skip
        read(view, partitions=range(2, 3))


@pytest.mark.parametrize(("field", "step", "message"), [
    ("bytes", 1, "frames of 300 bytes, and answers totals of 301"),
    ("rows", 2**32, "frames of 12 rows, and answers totals of 4294967308"),
    ("blocks", 1, "frames of 9 pieces, and answers totals of 10 blocks"),
])  # fmt: skip
def test_totals_that_are_not_the_frames(
    proxy: Tampered, shuffle: Shuffle, field: str, step: int, message: str
) -> None:
    def add(answer: Passing) -> Passing:
        if "/places/" not in answer.target or answer.method != "PUT":
            return answer
        stats = tables.decode(tables.STATISTICS, answer.body, what="").copy()
        stats[field][2] += step
        return answer.but(body=stats.tobytes())

    with proxy.changing(add), pytest.raises(ProtocolError, match=message):
        shuffle.view(WINNERS)


def test_what_is_right_is_read(two_worker_cluster: crossdock.Cluster, job_uid: str) -> None:
    """Blocks whose pieces lie on two workers are counted as one."""
    job = two_worker_cluster.job(job_uid, owner="runner")
    shuffle = job.shuffle("words", partitions=40)
    for map_id in WINNERS:
        write(shuffle, map_id)
    view = shuffle.view(WINNERS)
    assert len(view.places()) == 2
    assert read(view) == expected(shuffle, WINNERS)
    for maps in (range(0), range(1), range(1, 3), range(7, 9), range(2**32)):
        winners = {m: a for m, a in WINNERS.items() if m in maps}
        for partitions in (range(40), range(3, 21), range(5, 5)):
            found = read(view, partitions=partitions, maps=maps)
            assert found == expected(shuffle, winners, partitions=partitions)


def batch_of(*found: tuple[int, int, int, int]) -> BlockBatch:
    """Return a batch of (partition, map, bytes, rows)."""
    partition, map_id, lengths, rows = np.array(found, np.int64).T
    return BlockBatch(
        partition.astype(np.uint32), map_id.astype(np.uint32), rows.astype(np.uint64),
        np.zeros(len(found), np.int64), lengths, memoryview(b""),
    )  # fmt: skip


def stats_of(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(list(rows), tables.STATISTICS)


def test_counts_of_blocks_on_several_workers_are_bounds() -> None:
    promise = Promise.of_statistics([stats_of((1, 0, 2)), stats_of((2, 0, 1))], 0, 1)
    for blocks_, sound in ((1, False), (2, True), (3, True), (4, False)):
        delivered = Delivered(promise)
        delivered.add(batch_of((0, 0, 3, 0), *((0, m, 0, 0) for m in range(1, blocks_))))
        if sound:
            delivered.check("here")
        else:
            with pytest.raises(ProtocolError, match="here: partition 0 has 2 to 3 blocks, and"):
                delivered.check("here")


def test_a_part_of_a_promise_is_checked() -> None:
    delivered = Delivered(Promise.of_statistics([stats_of((9, 0, 1), (5, 1, 1), (7, 0, 1))], 0, 3))
    delivered.add(batch_of((1, 0, 5, 1)))
    delivered.check("here", slice(1, 2))
    with pytest.raises(ProtocolError, match="partition 0 has 9 bytes, and 0 came"):
        delivered.check("here")
    delivered.add(batch_of((0, 0, 9, 0), (2, 0, 7, 0)))
    delivered.check("here")
    delivered.add(batch_of((2, 1, 0, 0)))
    with pytest.raises(ProtocolError, match="partition 2 has 1 blocks, and 2 came"):
        delivered.check("here", slice(2, 3))


@pytest.mark.parametrize("partition", [3, 7])
def test_what_was_not_promised(partition: int) -> None:
    promise = Promise.of_statistics([np.zeros(9, tables.STATISTICS)], 4, 7)
    with pytest.raises(ProtocolError, match="of a partition that was not asked for"):
        Delivered(promise).add(batch_of((partition, 0, 1, 0)))
    none = Promise.of_frames(np.empty(0, tables.FRAME))
    with pytest.raises(ProtocolError, match="of a map that was not asked for"):
        Delivered(none).add(batch_of((0, 0, 1, 0)))
