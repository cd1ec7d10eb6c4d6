"""What happens to a job while a frame of it comes: the frame is refused, and leaves nothing."""

import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from crossdock.wire import tables
from harness import StartWorker, WorkerProcess, eventually
from raw import Line, Peer, Target

MIB = 2**20

both_ways = pytest.mark.parametrize("expect", [False, True], ids=["plain", "expect"])


@pytest.fixture
def words(worker: WorkerProcess) -> Target:
    """A shuffle with one frame, of map 9."""
    target = Target(Peer(worker.url, ""), f"under-way-{secrets.token_hex(8)}")
    assert target.register().status == 201
    assert target.push(target.frame(map_id=9)).status == 200
    return target


@contextmanager
def half_sent(target: Target, data: bytes, *, expect: bool) -> Iterator[Line]:
    """Open a connection on which half of a new frame came, so that its head was checked."""
    before = target.disk_bytes()
    with target.peer.line() as line:
        headers = {"Expect": "100-continue"} if expect else {}
        line.send(line.head("PUT", f"{target.path}/frames", length=len(data), headers=headers))
        if expect:
            assert line.reply().status == 100
        line.send(data[: len(data) // 2])
        eventually(lambda: target.disk_bytes() > before, what="the reservation")
        yield line


def take_over(target: Target) -> None:
    assert target.register(epoch=1).status == 200


def fence(target: Target) -> None:
    assert target.peer.ask("POST", f"{target.job_path}/fence").status == 200


def delete(target: Target) -> None:
    assert target.peer.ask("DELETE", target.job_path).status == 200


def release(target: Target) -> None:
    assert target.peer.ask("DELETE", target.path).status == 200


def abort(target: Target) -> None:
    """Abort the attempt of map 1; its first frame must be here for that."""
    assert target.peer.ask("DELETE", f"{target.path}/attempts/1/0").json()["frames"] == 1


ENDS = [
    (take_over, 409, "stale_epoch"),
    (fence, 410, "job_fenced"),
    (delete, 410, "job_fenced"),
    (release, 410, "shuffle_released"),
    (abort, 409, "attempt_conflict"),
]


@both_ways
@pytest.mark.parametrize(("end", "status", "code"), ENDS, ids=[e[0].__name__ for e in ENDS])
def test_a_frame_whose_job_changed_while_it_came_is_refused(
    words: Target, end: Callable[[Target], None], status: int, code: str, *, expect: bool
) -> None:
    assert words.push(words.frame(map_id=1, seq=0, count=0)).status == 200
    data = words.frame([(1, bytes(MIB), 1)], map_id=1, seq=1, count=2)
    with half_sent(words, data, expect=expect) as line:
        end(words)
        line.send(data[len(data) // 2 :])
        reply = line.reply()
        assert (reply.status, reply.code) == (status, code)
    if end is take_over:
        assert sorted(words.frames()["map"].tolist()) == [1, 9]
    elif end is abort:
        assert words.frames()["map"].tolist() == [9]


@both_ways
@pytest.mark.parametrize(("end", "status", "code"), ENDS[:4], ids=[e[0].__name__ for e in ENDS[:4]])
def test_a_copy_of_a_frame_is_not_acked_either(
    words: Target, end: Callable[[Target], None], status: int, code: str, *, expect: bool
) -> None:
    """It was here when its head came: a late ack would promise what does not hold any more."""
    data = words.frame([(1, bytes(MIB), 1)], map_id=1)
    assert words.push(data).status == 200
    marker = words.frame([(1, bytes(MIB), 1)], map_id=2)
    with words.peer.line() as line:
        headers = {"Expect": "100-continue"} if expect else {}
        line.send(line.head("PUT", f"{words.path}/frames", length=len(data), headers=headers))
        if expect:
            assert line.reply().status == 100
        line.send(data[: len(data) // 2])
        with half_sent(words, marker, expect=expect):  # by then the copy's head was read too
            end(words)
            line.send(data[len(data) // 2 :])
            reply = line.reply()
        assert (reply.status, reply.code) == (status, code)


# -- first frames that are refused ---------------------------------------------------------


def shuffle_files(worker: WorkerProcess, target: Target) -> list[str]:
    """Return what is on disk of a job's shuffles."""
    root = worker.data_dir / "jobs" / target.job / "shuffles"
    # Directories may go while it looks.
    return sorted(
        str(Path(folder, name).relative_to(root))
        for folder, folders, names in os.walk(root)
        for name in (*folders, *names)
    )


def check_no_trace(worker: WorkerProcess, target: Target) -> None:
    """The shuffle is as if nothing had come: no answer, no P, no file."""
    listed = target.peer.ask("POST", f"{target.path}/frames/list")
    assert (listed.status, listed.code) == (404, "shuffle_unknown")
    assert target.peer.ask("GET", target.job_path).json()["shuffles"] == []
    eventually(lambda: shuffle_files(worker, target) == [], what="files gone")
    eventually(lambda: target.disk_bytes() == 0, what="its bytes given back")
    other = replace(target, partitions=target.partitions + 3)
    assert other.push(other.frame()).status == 200


@pytest.fixture
def fresh(worker: WorkerProcess) -> Target:
    """A shuffle without any frame."""
    target = Target(Peer(worker.url, ""), f"first-{secrets.token_hex(8)}")
    assert target.register(quota_bytes=6 * MIB).status == 201
    return target


def damaged(target: Target) -> bytes:
    data = bytearray(target.frame([(1, bytes(MIB), 1)]))
    data[-1] ^= 1
    return bytes(data)


@both_ways
@pytest.mark.parametrize("kind", ["damaged", "over the quota"])
def test_a_first_frame_that_is_refused_leaves_no_shuffle(
    worker: WorkerProcess, fresh: Target, kind: str, *, expect: bool
) -> None:
    if kind == "damaged":
        data, status = damaged(fresh), 400
    else:
        data, status = fresh.frame([(1, bytes(7 * MIB), 1)]), 507
    assert fresh.push(data, expect=expect).status == status
    check_no_trace(worker, fresh)


@both_ways
def test_a_first_frame_that_breaks_off_leaves_no_shuffle(
    worker: WorkerProcess, fresh: Target, *, expect: bool
) -> None:
    with half_sent(fresh, fresh.frame([(1, bytes(MIB), 1)]), expect=expect):
        assert fresh.peer.ask("GET", fresh.job_path).json()["shuffles"] == []
        listed = fresh.peer.ask("POST", f"{fresh.path}/frames/list")
        assert (listed.status, listed.code) == (404, "shuffle_unknown")
    eventually(lambda: shuffle_files(worker, fresh) == [], what="files gone")
    check_no_trace(worker, fresh)


@both_ways
@pytest.mark.parametrize(("end", "status", "code"), ENDS[:4], ids=[e[0].__name__ for e in ENDS[:4]])
def test_a_first_frame_whose_job_changed_leaves_no_shuffle(
    fresh: Target, end: Callable[[Target], None], status: int, code: str, *, expect: bool
) -> None:
    data = fresh.frame([(1, bytes(MIB), 1)])
    with half_sent(fresh, data, expect=expect) as line:
        end(fresh)
        line.send(data[len(data) // 2 :])
        reply = line.reply()
        assert (reply.status, reply.code) == (status, code)
    if end in {take_over, release}:
        eventually(lambda: fresh.disk_bytes() == 0, what="its bytes given back")


@both_ways
def test_the_first_frame_that_is_whole_decides_the_partitions(
    fresh: Target, *, expect: bool
) -> None:
    other = replace(fresh, partitions=fresh.partitions + 3)
    sound = fresh.frame([(1, bytes(MIB), 1)], map_id=2)
    with half_sent(fresh, sound, expect=expect) as line:
        assert other.push(other.frame(map_id=1)).status == 200
        line.send(sound[len(sound) // 2 :])
        late = line.reply()
    assert (late.status, late.code) == (409, "shuffle_mismatch")
    assert fresh.frames()["map"].tolist() == [1]
    (described,) = fresh.peer.ask("GET", fresh.job_path).json()["shuffles"]
    assert described["partitions"] == other.partitions


def test_refused_and_sound_first_frames_at_once(fresh: Target) -> None:
    """Whichever comes first, a sound frame is taken and stays, and a damaged one never counts."""
    for round_ in range(10):
        target = replace(fresh, name=f"round-{round_}", partitions=4)
        bad = replace(target, partitions=7)
        with ThreadPoolExecutor(8) as pool:
            refused = [pool.submit(bad.push, damaged(bad)) for _ in range(4)]
            taken = [pool.submit(target.push, target.frame(map_id=m)) for m in range(4)]
            assert {f.result().status for f in refused} <= {400, 409}  # damaged, or another P
            assert {f.result().status for f in taken} == {200}
        assert sorted(target.frames()["map"].tolist()) == [0, 1, 2, 3]


def test_a_seal_outlives_a_first_frame_that_is_refused(fresh: Target) -> None:
    body = tables.encode(tables.attempts([(0, 5)]))
    assert fresh.peer.ask("PUT", f"{fresh.path}/seal", body).status == 201
    assert fresh.push(damaged(fresh)).status == 400
    assert fresh.peer.ask("GET", f"{fresh.path}/seal").body == body


def test_a_first_frame_that_a_crash_cut_off_leaves_no_file(start_worker: StartWorker) -> None:
    worker = start_worker()
    target = Target(Peer(worker.url, ""), "cut-off")
    assert target.register().status == 201
    with half_sent(target, target.frame([(1, bytes(MIB), 1)]), expect=True):
        assert "words/0/payload.log" in shuffle_files(worker, target)
        worker.kill9()
    worker.start()
    assert shuffle_files(worker, target) == []
    check_no_trace(worker, target)


@both_ways
def test_the_first_frame_of_a_shuffle_whose_writer_gave_up_leaves_nothing(
    words: Target, *, expect: bool
) -> None:
    """Nothing of the shuffle was here to abort: the writer's word must be kept by the job."""
    other = Target(words.peer, words.job, "late")
    data = other.frame([(1, bytes(MIB), 1)], map_id=1, writer=b"w" * 16)
    with half_sent(other, data, expect=expect) as line:
        gone = other.peer.ask("DELETE", f"{other.path}/attempts/1/0?writer={(b'w' * 16).hex()}")
        assert (gone.status, gone.code) == (404, "shuffle_unknown")
        line.send(data[len(data) // 2 :])
        reply = line.reply()
        assert (reply.status, reply.code) == (409, "attempt_conflict")
    assert other.push(other.frame(map_id=1, attempt=1)).status == 200
    assert other.frames()["attempt"].tolist() == [1]
