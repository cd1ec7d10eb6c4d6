"""Reading in many batches: what callers keep stays as it came; a worker that stalls is told."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support import options

from crossdock.cancel import Cancel
from crossdock.errors import Closed, Unavailable
from crossdock.http import Connection, Timeouts
from crossdock.wire import crc
from harness import WorkerProcess, connect_all

MIB = 2**20


def test_batches_that_are_kept_do_not_change_as_more_are_read(
    worker: WorkerProcess, job_uid: str
) -> None:
    small = options(read_batch_bytes=MIB + MIB // 2, read_ahead_bytes=8 * MIB)
    with (
        connect_all([worker], options=small) as cluster,
        cluster.job(job_uid, owner="runner") as job,
    ):
        shuffle = job.shuffle("kept", partitions=2, maps=8)
        sent = {}
        for m in range(8):
            with shuffle.writer(map_id=m, attempt=0) as writer:
                for p in range(2):
                    data = bytes([m * 2 + p]) * MIB
                    writer.write(p, data)
                    sent[p, m] = crc.extend(0, data)
        view = shuffle.view()
        kept = []
        for _ in range(3):
            kept += list(view.read_batches(range(2)))
            list(view.read_batches(range(1)))  # dropped at once: its memory is used again
        assert len(kept) > 24
        found = [
            (block.partition, block.map_id, crc.extend(0, block.data))
            for batch in kept
            for block in batch
        ]
        assert sorted(found) == sorted((p, m, c) for (p, m), c in sent.items() for _ in range(3))
        job.end()


@contextmanager
def stalling_server(body: bytes) -> Iterator[str]:
    """Run a server that answers one request with half of what it announces, then nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {2 * len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            over.wait(30)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        thread.join()
        listener.close()


def half_read(url: str, cancel: Cancel, stall_seconds: float, got: bytearray) -> None:
    connection = Connection(
        url,
        tls=None,
        timeouts=Timeouts(stall_seconds=stall_seconds),
        release=Connection.close,
        cancel=cancel,
    )
    with connection.request("GET", "/", headers=[], cancel=cancel) as response:
        while True:
            buffer = memoryview(bytearray(response.length - len(got)))
            got += buffer[: response.read_some(buffer)]


def test_a_body_that_stalls_ends_in_unavailable_and_keeps_what_came() -> None:
    body = bytes(range(256)) * 1000
    got = bytearray()
    with stalling_server(body) as url, pytest.raises(Unavailable, match=r"no byte for 3 s"):
        half_read(url, Cancel("closed"), 3, got)
    assert got == body


def test_cancel_ends_the_wait_for_a_body() -> None:
    cancel, got = Cancel("it is over"), bytearray()
    timer = threading.Timer(0.3, cancel.set)
    with stalling_server(bytes(1000)) as url:
        timer.start()
        with pytest.raises(Closed, match="it is over"):
            half_read(url, cancel, 60, got)
    timer.join()
