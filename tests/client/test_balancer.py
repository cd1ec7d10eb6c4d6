"""An endpoint may be a load balancer: each connection meets another worker, and nothing is lost."""

import itertools
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from support import expected, options, read, wipe, write

import crossdock
from crossdock import BlocksLost
from harness import WorkerProcess, eventually, started_workers

MAPS = dict.fromkeys(range(6), 0)


def _pipe(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for sock in (source, sink):
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def balanced(workers: Sequence[WorkerProcess]) -> Iterator[str]:
    """Give each new connection to the next worker that takes it."""
    turns = itertools.cycle(workers)
    open_: list[socket.socket] = []
    threads: list[threading.Thread] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def behind() -> socket.socket | None:
        for worker in itertools.islice(turns, len(workers)):
            with suppress(OSError):
                return socket.create_connection(("127.0.0.1", worker.port))
        return None

    def accept() -> None:
        with suppress(OSError):
            while True:
                front, _ = listener.accept()
                open_.append(front)
                back = behind()
                if back is None:
                    front.close()
                    continue
                open_.append(back)
                for pair in ((front, back), (back, front)):
                    threads.append(threading.Thread(target=_pipe, args=pair))
                    threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for sock in open_:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for sock in open_:
            sock.close()


@pytest.fixture
def behind_one() -> Iterator[tuple[list[WorkerProcess], str]]:
    """Two workers that know each other, and the one URL of both."""
    with started_workers(1, options={"peers_interval_seconds": 0.1}) as (first,):
        more = {"peers_interval_seconds": 0.1, "peers": first.url}
        with started_workers(1, options=more) as (second,):
            first.restart(peers=second.url)
            for worker in (first, second):
                eventually(lambda w=worker: len(w.get_json("/v1/workers")["workers"]) == 2)
            with balanced([first, second]) as url:
                yield [first, second], url


def test_each_call_may_meet_another_worker(
    behind_one: tuple[list[WorkerProcess], str], job_uid: str
) -> None:
    workers, url = behind_one
    with crossdock.connect([url], options=options(frame_bytes=2000)) as cluster:
        shuffle = cluster.job(job_uid, owner="runner").shuffle("words", partitions=8)
        for map_id in MAPS:
            for idle in cluster.pool._idle.values():  # the next calls make connections of their own
                while idle:
                    idle.pop().close()
            write(shuffle, map_id, size=900)
            members = cluster.members(fresh=True)
            assert {i.url for i in members.reachable.values()} == {w.url for w in workers}
            assert not members.lost
        assert read(shuffle.view(MAPS)) == expected(shuffle, MAPS, size=900)


def test_one_that_is_away_is_not_lost_when_another_answers_for_it(
    behind_one: tuple[list[WorkerProcess], str], job_uid: str
) -> None:
    workers, url = behind_one
    patient = options(loss_after_seconds=60)
    with crossdock.connect([url], options=patient) as cluster:
        shuffle = cluster.job(job_uid, owner="runner").shuffle("words", partitions=8)
        write(shuffle, 0)
        workers[0].kill9()
        cluster.options = replace(patient, deadline_seconds=1)
        with pytest.raises(crossdock.Unavailable):
            shuffle.view({0: 0})
        cluster.options = patient
        wipe(workers[0])
        workers[0].start()
        with pytest.raises(BlocksLost, match="another worker answers at"):
            shuffle.view({0: 0})
