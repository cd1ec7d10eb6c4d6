"""A job's files: they go out of sight at once, for good, without a lock that others wait for."""

import errno
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from crossdock.errors import (
    DataCorrupt,
    JobFenced,
    Overloaded,
    QuotaExceeded,
    ShuffleReleased,
    StaleEpoch,
)
from crossdock.records import JobRecord
from crossdock.wire import tables
from crossdock.wire.frame import HEADER_BYTES, Columns, FrameHeader
from crossdock_worker import accounts
from crossdock_worker.job import Job
from crossdock_worker.jobs import Jobs
from crossdock_worker.trash import Trash
from raw import make_frame

SEAL = tables.attempts([(0, 5)])


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    """A worker's jobs: "one", with a frame and a seal in generations 0 to 2 of "words"."""
    found = Jobs(tmp_path, max_shuffles=100)
    job, _ = found.register("one", JobRecord.from_json({"owner": "cluster"}))
    for generation in range(3):
        put_frame(job, generation)
        job.seal("words", generation, SEAL, epoch=0)
    yield found
    found.close()


def put_frame(job: Job, generation: int, *, epoch: int = 0) -> None:
    data = make_frame([(1, b"abc", 1)], partitions=8, generation=generation, epoch=epoch)
    header = FrameHeader.decode(data)
    columns = Columns.decode(header, data[HEADER_BYTES : HEADER_BYTES + header.columns_bytes])
    with job.writing("words", generation) as log, log.reserve(header) as reservation:
        log.payload.write(reservation.payload_at, b"abc")
        assert log.commit(header, columns, reservation)


def test_a_shuffle_has_its_jobs_epoch_from_the_beginning(tmp_path: Path) -> None:
    """The check of a frame's head alone could be too early."""
    jobs = Jobs(tmp_path, max_shuffles=100)
    job, _ = jobs.register("one", JobRecord.from_json({"owner": "cluster", "epoch": 5}))
    late = FrameHeader.decode(make_frame([], partitions=8, map_id=1, epoch=4)[:HEADER_BYTES])
    with job.writing("words", 0) as made, pytest.raises(StaleEpoch):
        made.find(late)
    put_frame(job, 0, epoch=5)
    jobs.close()
    again = Jobs(tmp_path, max_shuffles=100)
    with pytest.raises(StaleEpoch):
        again.get("one").shuffle("words", 0).find(late)
    again.close()


def test_commands_that_waited_while_another_owner_came(jobs: Jobs) -> None:
    """Their epoch was sound when they were sent."""
    job = jobs.get("one")
    commands: list[Callable[[], object]] = [
        lambda: job.seal("words", 7, SEAL, epoch=0),
        lambda: job.release("words", 2, epoch=0),
    ]
    with ThreadPoolExecutor(len(commands)) as pool:
        with job.files_lock:
            waiting = [pool.submit(command) for command in commands]
            jobs.register("one", JobRecord.from_json({"owner": "cluster", "epoch": 1}))
        for command in waiting:
            with pytest.raises(StaleEpoch):
                command.result()
    with pytest.raises(StaleEpoch):
        job.shuffle("words", 1).abort(0, 0, None, epoch=0)
    assert job.read_seal("words", 7) is None
    assert sorted(job.shuffles) == [("words", 0), ("words", 1), ("words", 2)]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("job.json", b"{"),
        ("job.json", b"\xff{}"),
        ("job.json", b"[]"),
        ("job.json", b'{"owner": "nobody"}'),
        ("released.json", b"[]"),
        ("released.json", b'{"words": null}'),
        ("shuffles/words/other/seal", b""),
    ],
)
def test_a_damaged_job_does_not_stop_the_others(
    jobs: Jobs, tmp_path: Path, file: str, content: bytes
) -> None:
    jobs.register("two", JobRecord.from_json({"owner": "cluster"}))
    put_frame(jobs.get("two"), 0)
    jobs.close()
    path = tmp_path / "jobs" / "one" / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    again = Jobs(tmp_path, max_shuffles=100)
    assert again.get("two").shuffle("words", 0).counts == (1, 1)
    for _ in range(2):
        with pytest.raises(DataCorrupt, match="job one"):
            again.get("one")
        with pytest.raises(DataCorrupt):
            again.register("one", JobRecord.from_json({"owner": "cluster", "epoch": 3}))
    assert path.exists(), "damage deletes nothing"
    again.delete("one", 0)
    assert not (tmp_path / "jobs" / "one").exists()
    with pytest.raises(JobFenced):
        again.get("one")
    again.close()


@pytest.mark.parametrize("at", [0, 5, 11, 15])
def test_a_damaged_seal_is_reported(jobs: Jobs, tmp_path: Path, at: int) -> None:
    job = jobs.get("one")
    path = tmp_path / "jobs" / "one" / "shuffles" / "words" / "1" / "seal"
    sound = path.read_bytes()
    for data in (sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :], sound[:at]):
        path.write_bytes(data)
        with pytest.raises(DataCorrupt, match="seal is damaged"):
            job.read_seal("words", 1)
        with pytest.raises(DataCorrupt, match="seal is damaged"):
            job.seal("words", 1, SEAL, epoch=0)


def test_a_quota_may_be_filled_exactly(jobs: Jobs) -> None:
    job = jobs.get("one")
    accounts.check_disk_quota(job, 100, job.disk_bytes + 100)
    with pytest.raises(QuotaExceeded):
        accounts.check_disk_quota(job, 101, job.disk_bytes + 100)


@pytest.mark.parametrize(("own", "workers", "holds"), [(50, 90, 50), (90, 50, 50), (0, 50, 50)])
def test_of_two_quotas_the_lower_one_holds(
    tmp_path: Path, own: int, workers: int, holds: int
) -> None:
    jobs = Jobs(tmp_path, max_shuffles=100)
    record = JobRecord.from_json({"owner": "cluster", "quota_bytes": own})
    job, _ = jobs.register("one", record)
    accounts.check_disk_quota(job, holds, workers)
    with pytest.raises(QuotaExceeded, match=f"its quota is {holds}"):
        accounts.check_disk_quota(job, holds + 1, workers)
    jobs.close()


def test_the_owners_word_goes_before_a_tasks(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, max_shuffles=100)
    told = JobRecord.from_json({"owner": "runner", "epoch": 2**63, "homes": ["none"]})
    job, new = jobs.introduce("one", told)
    assert (new, job.introduced) == (True, True)
    put_frame(job, 0, epoch=2**63)
    jobs.close()
    jobs = Jobs(tmp_path, max_shuffles=100)  # it is known over restarts who said so
    mine = JobRecord.from_json({"owner": "runner", "epoch": 1, "homes": ["here"]})
    job, new = jobs.register("one", mine)
    assert (new, job.introduced, job.record) == (False, False, mine)
    put_frame(job, 1, epoch=1)
    assert jobs.introduce("one", told) == (job, False)
    assert job.record == mine
    with pytest.raises(StaleEpoch):
        jobs.register("one", JobRecord.from_json({"owner": "runner", "epoch": 0}))
    jobs.introduce("two", told)
    jobs.fence("two", 1)  # the owner may end what it never registered here
    jobs.close()
    jobs = Jobs(tmp_path, max_shuffles=100)
    assert jobs.get("one").record == mine
    assert not jobs.get("one").introduced
    jobs.close()


def files(directory: Path) -> list[str]:
    found = (directory / "jobs").glob("*/shuffles/*/*")
    return sorted(str(p.relative_to(directory / "jobs")) for p in found)


def restarted(directory: Path) -> Jobs:
    """Return what a new process finds, and close its files."""
    found = Jobs(directory, max_shuffles=100)
    found.close()
    return found


@dataclass(frozen=True, slots=True)
class Step:
    """Something that deletes, and what is left then."""

    act: Callable[[Jobs], object]
    left: list[str]


RELEASE = Step(lambda jobs: jobs.get("one").release("words", 1, epoch=0), ["one/shuffles/words/2"])
DELETE = Step(lambda jobs: jobs.delete("one", 2**64 - 1), [])
both = pytest.mark.parametrize("step", [RELEASE, DELETE], ids=["release", "delete"])


@both
def test_space_is_freed_on_a_full_disk(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    spare, write_bytes = tmp_path / "spare", Path.write_bytes
    blocks = spare.stat().st_blocks

    def full(path: Path, data: bytes) -> int:
        if spare.exists():  # all that is free is what the spare file had
            raise OSError(errno.ENOSPC, "told to be full")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Overloaded):  # nothing else gets it
        jobs.register("new", JobRecord.from_json({"owner": "cluster"}))
    step.act(jobs)
    assert files(tmp_path) == step.left
    assert spare.stat().st_blocks == blocks > 0, "there is room, and none is spare"
    restarted(tmp_path)
    assert files(tmp_path) == step.left


@both
def test_nobody_waits_for_a_deletion(
    jobs: Jobs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: Step,
) -> None:
    job = jobs.get("one")
    begun, goes_on = threading.Event(), threading.Event()
    rmtree = shutil.rmtree

    def slow(path: Path, *, ignore_errors: bool) -> None:
        begun.set()
        assert goes_on.wait(60)
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", slow)
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(step.act, jobs)
        try:
            assert begun.wait(60)
            assert files(tmp_path) == step.left
            for lock in (job.lock, job.files_lock):
                assert lock.acquire(timeout=30)
                lock.release()
            assert not acting.done()
        finally:
            goes_on.set()
        acting.result(60)
    assert list((tmp_path / "trash").iterdir()) == []


@both
@pytest.mark.parametrize("where", ["take", "delete"])
def test_kill_9_inside_a_deletion_leaves_nothing_after_a_restart(
    jobs: Jobs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    step: Step,
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trash, where, killed)
        with pytest.raises(Killed):
            step.act(jobs)
    again = restarted(tmp_path)
    assert files(tmp_path) == step.left
    assert list((tmp_path / "trash").iterdir()) == []
    with pytest.raises((ShuffleReleased, JobFenced)):
        again.get("one").shuffle("words", 1)


def test_a_release_that_cannot_be_written_down_did_not_happen(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr("crossdock_worker.trash.write_json", killed)
    with pytest.raises(Killed):
        jobs.get("one").release("words", 1, epoch=0)
    assert jobs.get("one").shuffle("words", 1).counts == (1, 1)
    assert restarted(tmp_path).get("one").shuffle("words", 0).counts == (1, 1)


def test_of_many_seals_at_once_one_holds(jobs: Jobs) -> None:
    job = jobs.get("one")
    with ThreadPoolExecutor(8) as pool:
        wishes = [tables.attempts([(0, n)]) for n in range(16)]
        found = list(pool.map(lambda wish: job.seal("other", 0, wish, epoch=0), wishes))
    assert sum(new for _, new in found) == 1
    assert len({tables.encode(seal) for seal, _ in found}) == 1
    stored = job.read_seal("other", 0)
    assert stored is not None
    assert np.array_equal(stored, found[0][0])


def test_nothing_is_made_for_a_fenced_job(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs.get("one")
    jobs.delete("one", 2**64 - 1)
    for late in (
        lambda: put_frame(job, 7),
        lambda: job.seal("words", 7, SEAL, epoch=0),
        lambda: job.release("words", 7, epoch=0),
    ):
        with pytest.raises(JobFenced):
            late()
    assert not (tmp_path / "jobs" / "one").exists()
