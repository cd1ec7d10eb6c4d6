"""`--store-compression zstd`: smaller segments for clients that did not compress."""

import os
import random
from pathlib import Path

import pytest

import crossdock
from crossdock.errors import CorruptBlock
from crossdock.wire.blocks import BatchHeader
from harness import StartWorker, connect_all

MIB = 2**20
OPTIONS = crossdock.Options(frame_bytes=2**18, buffer_bytes=2**20, deadline_seconds=60)


def content(kind: str, map_id: int, partition: int) -> bytes:
    rng = random.Random(f"{map_id} {partition}")
    if kind == "noise":
        return rng.randbytes(40_000)
    return b"%d %d " % (map_id, partition) * 6_000


@pytest.mark.parametrize(("kind", "shrinks"), [("text", True), ("noise", False)])
def test_segments_shrink_where_that_pays_and_read_the_same(
    start_worker: StartWorker, tmp_path: Path, job_uid: str, kind: str, *, shrinks: bool
) -> None:
    store = tmp_path / "store"
    worker = start_worker(store=store.as_uri(), store_compression="zstd")
    with (
        connect_all([worker], options=OPTIONS) as cluster,
        cluster.job(job_uid, owner="runner") as job,
    ):
        shuffle = job.shuffle("words", partitions=12)
        for m in range(5):
            with shuffle.writer(map_id=m, attempt=0) as writer:
                for p in range(12):
                    writer.write(p, content(kind, m, p))
                writer.write(3, b"")
        view = shuffle.view(dict.fromkeys(range(5), 0))
        expected = [(b.partition, b.map_id, bytes(b.data)) for b in view.read()]
        published = view.persist()
    raw = int(view.bytes.sum())
    found = sum(p.stat().st_size for p in store.rglob("segments/*/*") if p.is_file())
    assert (found < raw / 5) == shrinks
    assert found < raw + 20_000
    with crossdock.open_view(published.store, job_uid, "words", view.id) as stored:
        assert [(b.partition, b.map_id, bytes(b.data)) for b in stored.read()] == expected
        some = [
            (b.partition, b.map_id, bytes(b.data)) for b in stored.read(range(2, 5), range(1, 3))
        ]
        assert some == [b for b in expected if 2 <= b[0] < 5 and 1 <= b[1] < 3]


def test_a_flipped_byte_of_a_compressed_batch_is_told(
    start_worker: StartWorker, tmp_path: Path, job_uid: str
) -> None:
    store = tmp_path / "store"
    worker = start_worker(store=store.as_uri(), store_compression="zstd")
    with (
        connect_all([worker], options=OPTIONS) as cluster,
        cluster.job(job_uid, owner="runner") as job,
    ):
        shuffle = job.shuffle("words", partitions=2)
        for m in range(3):
            with shuffle.writer(map_id=m, attempt=0) as writer:
                writer.write(1, content("text", m, 1))
        view = shuffle.view(dict.fromkeys(range(3), 0))
        published = view.persist()
    (segment,) = (p for p in store.rglob("segments/*/*") if p.is_file())
    data = bytearray(segment.read_bytes())
    head = BatchHeader.decode(bytes(data[:64]))
    assert head.zstd
    written = segment.stat()
    begin = 64 + 36 * head.pieces
    for at in (begin + 2, begin + 14):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        segment.write_bytes(damaged)
        os.utime(segment, ns=(written.st_atime_ns, written.st_mtime_ns))  # as a disk does it
        with (
            crossdock.open_view(published.store, job_uid, "words", view.id) as stored,
            pytest.raises(crossdock.CrossdockError) as caught,
        ):
            list(stored.read())
        assert isinstance(caught.value, CorruptBlock), caught.value
        assert segment.name in str(caught.value)
        assert "offset" in str(caught.value)


def test_an_unknown_compression_is_refused(start_worker: StartWorker, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="--store-compression 'gzip' is neither none nor zstd"):
        start_worker(store=tmp_path.as_uri(), store_compression="gzip")
