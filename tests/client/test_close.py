"""Giving up and closing end at once what is under way, whatever the workers do."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
from support import open_job, read, write

import crossdock
from crossdock import Closed
from crossdock.cancel import Cancel
from crossdock.http import Timeouts
from crossdock.pool import Pool
from harness import StartWorker, WorkerProcess, eventually, send, silent

PATIENT = {"deadline_seconds": 60, "loss_after_seconds": 60, "stall_seconds": 60}
SMALL = {"frame_bytes": 1000, "buffer_bytes": 8000}
SOON_SECONDS = 30.0
"""Far below PATIENT's."""


@contextmanager
def soon() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < SOON_SECONDS


def begin(job: crossdock.Job, *, frames: int = 4) -> crossdock.Writer:
    """Return a writer that has begun to push."""
    writer = job.shuffle("words", partitions=2).writer(map_id=0, attempt=0)
    for _ in range(frames + 1):
        writer.write(0, bytes(1000))
    return writer


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Run it in a thread; return what it raised, once it has ended."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- told to the test's own thread
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def test_an_abort_does_not_wait_for_pushes_to_a_dead_worker(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker], **PATIENT, **SMALL) as job:
        writer = job.shuffle("words", partitions=2).writer(map_id=0, attempt=0)
        worker.kill9()
        for _ in range(4):
            writer.write(0, bytes(1000))
        with soon():
            writer.abort()
        assert all(future.done() for future, _ in writer._pending)
        with pytest.raises(crossdock.ConfigError, match="committed or aborted already"):
            writer.write(0, b"more")


def test_an_abort_ends_pushes_that_a_worker_does_not_answer(start_worker: StartWorker) -> None:
    """It still has to ask that worker to drop the frames, so this worker comes back."""
    worker = start_worker()
    with open_job([worker], **PATIENT, **SMALL) as job:
        writer = job.shuffle("words", partitions=2).writer(map_id=0, attempt=0)
        with silent(worker):
            for _ in range(4):
                writer.write(0, bytes(1000))
            futures = [future for future, _ in writer._pending]
            eventually(lambda: any(f.running() for f in futures), what="a push under way")
            writer._cancel.set()
            with soon():
                eventually(lambda: all(f.done() or not f.running() for f in futures))
            assert any(isinstance(f.exception(), Closed) for f in futures if f.done())
        writer.abort()
        with pytest.raises(crossdock.BlocksLost):
            job.shuffle("words", partitions=2).view({0: 0})


@pytest.mark.parametrize("how", ["silent", "dead"])
def test_closing_ends_a_commit_in_another_thread(start_worker: StartWorker, how: str) -> None:
    worker = start_worker()
    with open_job([worker], **PATIENT, **SMALL) as job:
        writer = begin(job)
        if how == "dead":
            worker.kill9()
        with silent(worker) if how == "silent" else nullcontext():
            thread, raised = in_thread(writer.commit)
            eventually(lambda: writer._last_pushed, what="the commit")
            with soon():
                job.cluster.close()
                thread.join()
    assert [type(e) for e in raised] == [Closed]
    assert "the cluster" in str(raised[0])


def test_closing_ends_a_read_in_another_thread(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker], **PATIENT) as job:
        shuffle = job.shuffle("words", partitions=2)
        write(shuffle, 0)
        view = shuffle.view({0: 0})
        with silent(worker):
            thread, raised = in_thread(lambda: read(view))
            eventually(lambda: job.cluster.pool.cancel._ends, what="a call under way")
            with soon():
                job.cluster.close()
                thread.join()
    assert [type(e) for e in raised] == [Closed]


def test_a_closed_cluster_says_so(worker: WorkerProcess, job_uid: str) -> None:
    cluster = worker.connect()
    job = cluster.job(job_uid, owner="runner")
    shuffle = job.shuffle("words", partitions=2, maps=1)
    write(shuffle, 0)
    view, writer = shuffle.view(), shuffle.writer(map_id=0, attempt=1)
    writer.write(0, b"data")
    blocks = view.read()
    cluster.close()
    cluster.close()
    for call in (
        lambda: shuffle.view({0: 0}), shuffle.view, shuffle.release, job.end, writer.commit,
        lambda: list(blocks), lambda: read(view), lambda: view.block_sizes(range(2)),
        lambda: shuffle.writer(map_id=0), lambda: cluster.job(job_uid),
    ):  # fmt: skip
        with pytest.raises(Closed, match="closed"):
            call()
    writer.abort()
    assert send(worker.url, "DELETE", job.path).status == 200


def test_a_connection_that_does_not_come_about_is_ended() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        address = full.getsockname()
        first.connect(address)  # the one place there is; the kernel leaves others waiting
        pool, cancel = Pool(token=str, timeouts=Timeouts(60, 60)), Cancel("enough")
        url = "http://{}:{}".format(*address)
        threads = [in_thread(lambda: pool.call("GET", url, "/", cancel=cancel)) for _ in range(3)]
        eventually(lambda: len(cancel._ends) == 3, what="sockets that connect")
        with soon():
            cancel.set()
            for thread, _ in threads:
                thread.join()
        assert [type(e) for _, raised in threads for e in raised] == [Closed] * 3
        with pytest.raises(Closed, match="enough"):
            pool.call("GET", url, "/", cancel=cancel)
        assert not cancel._ends
        pool.close()


def test_what_is_cancelled_cancels_its_children() -> None:
    parent = Cancel("the parent")
    child, other = Cancel("the child", parent=parent), Cancel("the other", parent=parent)
    other.set()
    child.check()
    parent.check()
    parent.set()
    with pytest.raises(Closed, match="the parent"):
        child.check()
    late = Cancel("late", parent=parent)
    assert late.event.is_set()
    ended: list[str] = []
    late.watch("what comes late", lambda: ended.append("too"))
    assert ended == ["too"]
