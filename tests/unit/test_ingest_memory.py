"""What the index of a frame takes in memory while the frame comes in."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from crossdock.views import ShuffleKey
from crossdock.wire import frame
from crossdock.wire.frame import FrameHeader
from crossdock_worker.ingest import FrameSink
from crossdock_worker.shuffle_log import ShuffleLog

PIECES = 1_000_000
MIB = 2**20


def test_an_index_takes_what_operations_md_says(tmp_path: Path) -> None:
    none, ones = np.zeros(PIECES, np.uint32), np.ones(PIECES, np.uint32)
    head, payload = frame.build(
        payload=bytes(PIECES), partition=none, length=ones, rows=ones,
        partitions=1, map_id=0, attempt=0, seq=0, writer=b"w" * 16, count=1,
    )  # fmt: skip
    log = ShuffleLog.create(tmp_path / "log", ShuffleKey("job", "words", 0))

    @contextmanager
    def place(_header: FrameHeader) -> Iterator[ShuffleLog]:
        yield log

    tracemalloc.start()
    sink = FrameSink(len(head) + PIECES, place)
    view = memoryview(head)
    for at in range(0, len(view), MIB):
        sink.feed(view[at : at + MIB])
    sink.feed(memoryview(payload))
    assert sink.finish()
    sink.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    log.close()
    assert peak < 40 * PIECES
