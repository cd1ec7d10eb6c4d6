"""The tasks of job.yaml: an external sort by ranges of keys.

    sample      draws keys from all files
    partition   cuts their range into as many parts as there are partitions, and sends each record
                of this task's part of the files to the partition of its range
    sort        sorts its partitions one after the other, each into memory, and writes them

The files that `sort` writes are sorted, and so is their concatenation in the order of their names.

Memory: a task of `partition` has a few chunks of 16 MB. A task of `sort` has up to six partitions:
one that is read (twice, while its blocks are put together), one that is sorted, one that is
written, and their buffers. With 64 partitions that is a tenth of all data for each task; so raise
the number of partitions in job.yaml, and `SAMPLED_KEYS`, with the data. Partitions are about even
whatever the keys are, as records of one key may go to several.
"""

import json
import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import records
from records import RECORD_BYTES, Records

import crossdock
from crossdock.tasks import FilesOutput, ShuffleInput, ShuffleOutput, Task

SAMPLED_KEYS: Final = 16_384
"""With 64 partitions, 256 for each: its size is then off by 6 % or so."""
CHUNK_RECORDS: Final = 160_000
"""Partitioned at once; two frames."""
PIECE_RECORDS: Final = 40_000
"""At most; half a frame, which a piece must fit."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the input."""

    path: str
    records: int

    @classmethod
    def at(cls, path: str) -> "File":
        """Look how many records a file has."""
        size = Path(path).stat().st_size
        if size % RECORD_BYTES:
            raise ValueError(f"{path} has {size} bytes, and records have {RECORD_BYTES}")
        return cls(path, size // RECORD_BYTES)

    def open(self) -> Records:
        """Return its records; they are read from the file when they are looked at."""
        with Path(self.path).open("rb") as file:
            return records.of_bytes(
                memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            )


def sample(task: Task, output: ShuffleOutput) -> None:
    """Draw keys from all files, and say which files there are."""
    files = [f for f in map(File.at, task.files()) if f.records]
    total = sum(f.records for f in files)
    draw = np.random.default_rng(0)
    keys = [
        records.keys(file.open()[np.sort(draw.integers(0, file.records, wanted))])
        for file in files
        if (wanted := -(-SAMPLED_KEYS * file.records // total))
    ]
    listed = json.dumps([(f.path, f.records) for f in files]).encode()
    with output.writer() as writer:
        writer.write(0, listed)
        writer.write(1, np.sort(np.concatenate([np.empty(0, records.KEY), *keys])).tobytes())


def chunks(files: Sequence[File], share: range) -> Iterator[tuple[int, Records]]:
    """Yield the records whose numbers, counted through all files, are in `share`.

    Yields:
        The number of a chunk's first record, and the chunk.
    """
    before = 0
    for file in files:
        wanted = range(max(share.start - before, 0), min(share.stop - before, file.records))
        if wanted:
            opened = file.open()
            for first in wanted[::CHUNK_RECORDS]:
                last = min(first + CHUNK_RECORDS, wanted.stop)
                yield before + first, opened[first:last]
        before += file.records


def partition(task: Task, output: ShuffleOutput) -> None:
    """Send each record of this task's part of the files to the partition of its key."""
    listed, sampled = (bytes(block.data) for block in task.input().read())
    files = [File(*entry) for entry in json.loads(listed)]
    keys = np.frombuffer(sampled, records.KEY)
    partition_of = records.partitioner(records.boundaries(keys, output.partitions))
    total = sum(f.records for f in files)
    share = range(total * task.index // task.count, total * (task.index + 1) // task.count)
    with output.writer() as writer:
        for number, chunk in chunks(files, share):
            ids = partition_of(chunk, number)
            partitions, counts = pieces(np.bincount(ids, minlength=output.partitions))
            grouped = chunk.take(records.grouped(ids), mode="clip")
            data = grouped.view(np.uint8).data
            writer.write_batch(partitions, data, counts * RECORD_BYTES, counts)


def pieces(counts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut so many records of each partition into pieces; return each's partition and count."""
    needed = -(-counts // PIECE_RECORDS)
    partitions = np.repeat(np.arange(len(counts)), needed)
    sizes = np.full(len(partitions), PIECE_RECORDS)
    last = np.cumsum(needed)[needed > 0] - 1
    sizes[last] = ((counts - 1) % PIECE_RECORDS + 1)[needed > 0]
    return partitions, sizes


def sort(task: Task, output: FilesOutput) -> None:
    """Sort this task's partitions, one after the other, into one file.

    Meanwhile the next one is read and the last one is written.
    """
    free = deque(np.empty(0, records.RECORD) for _ in range(2))
    written: Future[None] | None = None
    with (
        FileIO(output.path(), "wb") as file,
        ThreadPoolExecutor(1) as reading,
        ThreadPoolExecutor(1) as writing,
    ):
        for these in read_ahead(reading, task.input()):
            buffer = free.popleft()
            if len(buffer) < len(these):
                buffer = np.empty(len(these) * 9 // 8, records.RECORD)
            ranked = buffer[: len(these)]
            these.take(records.order(these), out=ranked, mode="clip")
            if written is not None:
                written.result()
            written = writing.submit(write_all, file, ranked.view(np.uint8).data)
            free.append(buffer)
        if written is not None:
            written.result()


def read_ahead(pool: ThreadPoolExecutor, source: ShuffleInput) -> Iterator[Records]:
    """Yield the records of each partition; the one after is read meanwhile."""
    ahead: Future[Records] | None = None
    for p in source.partitions:
        now, ahead = ahead, pool.submit(read_partition, source, p)
        if now is not None:
            yield now.result()
    if ahead is not None:
        yield ahead.result()


def read_partition(source: ShuffleInput, partition: int) -> Records:
    """Return all records of a partition, copied only if they do not lie together already."""
    parts = []
    for batch in source.view.read_batches(partition):
        ends = batch.starts + batch.lengths
        if (batch.starts[1:] == ends[:-1]).all():
            parts.append(batch.data[int(batch.starts[0]) : int(ends[-1])])
        else:
            parts += [block.data for block in batch]
    return records.of_bytes(parts[0] if len(parts) == 1 else b"".join(parts))


def write_all(file: FileIO, data: memoryview) -> None:
    """Write all bytes: a single call writes 2 GiB at most."""
    while data:
        data = data[file.write(data) :]


def main() -> None:
    with crossdock.task() as task:
        match task.stage, task.output:
            case "sample", ShuffleOutput() as output:
                sample(task, output)
            case "partition", ShuffleOutput() as output:
                partition(task, output)
            case "sort", FilesOutput() as output:
                sort(task, output)


if __name__ == "__main__":
    main()
