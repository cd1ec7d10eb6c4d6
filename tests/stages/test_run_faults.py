"""`crossdock run` when it, or anything of it, is stopped, killed or loses its disk."""

import random
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
from runs import JobDirectory, Run, maps, reduces

from harness import eventually

GRANDCHILDREN = "sleep 1000 & (setsid sleep 1000 &) ; exec python task.py"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_in_the_middle_ends_all_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    job = JobDirectory(tmp_path, maps(2, "sh", "-c", GRANDCHILDREN), reduces(1))
    job.hold("map-1")
    with job.run() as run:
        job.until("a task that is done", lambda: job.done()["map-0"])
        run.signal(number)
        run.wait(130)
    assert f"stopped by {number.name}" in run.err
    job.check_clean()


@pytest.mark.parametrize("seed", range(3))
def test_a_signal_at_any_moment_leaves_nothing(tmp_path: Path, seed: int) -> None:
    job = JobDirectory(tmp_path, maps(1), reduces(1))
    job.hold("reduce")
    moment = random.Random(seed)
    with job.run() as run:
        # Before the run has made something there is nothing that it could leave.
        eventually(lambda: any(job.temporary.iterdir()), what="a directory")
        time.sleep(moment.uniform(0, 1.5))
        run.signal(signal.SIGTERM)
        time.sleep(moment.uniform(0, 0.5))
        run.signal(signal.SIGINT)
        run.wait(130, -signal.SIGINT)  # the latter if it was on its way out when that came
    assert "Traceback" not in run.err
    job.check_clean()


def test_ctrl_c_does_not_wait_for_a_worker_that_hangs(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(1), reduces(1))
    job.hold("map-end")
    with job.run() as run:
        job.until("what a task writes", job.written)
        run.worker().suspend()
        job.release("map-end")
        job.until("the end of the task", lambda: job.done()["map-0"])
        time.sleep(0.5)  # now the run asks the worker for the view
        began = time.monotonic()
        run.signal(signal.SIGINT)
        run.wait(130)
        assert time.monotonic() - began < 60, "it would wait for minutes"
    job.check_clean()


def test_a_killed_runner_takes_its_children_along_and_resume_goes_on(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(3, "sh", "-c", GRANDCHILDREN), reduces(2))
    directory = tmp_path / "kept"
    job.hold("map-2")
    with job.run("--dir", directory) as run:
        job.until(
            "two done, one under way", lambda: len(job.done()) == 2 and len(job.starts()) == 3
        )
        run.kill9()
        assert "Traceback" not in run.read()
        assert "Exception" not in run.read()
    assert (directory / "run.json").exists()
    job.release("map-2")
    job.hold("reduce-1")
    with job.run("--resume", directory, job=False) as run:
        done = directory / "done" / "reduce"
        job.until(
            "the first reduce task", lambda: list(done.glob("0-*")) and job.starts()["reduce-1"]
        )
        run.kill9()
    assert not job.result.exists()
    job.release("reduce-1")
    job.finish("--resume", directory, job=False)
    job.check_result()
    job.check_clean("result")
    assert not directory.exists()
    starts = job.starts()
    assert starts.pop("map-2") == 2
    assert starts.pop("reduce-1") == 2
    assert set(starts.values()) == {1}, starts


@pytest.mark.parametrize("how", ["--resume", "--dir", "plain"])
def test_a_run_right_after_a_kill_waits_until_the_dead_ones_tasks_have_ended(
    tmp_path: Path, how: str
) -> None:
    job = JobDirectory(tmp_path, maps(1, "sh", "-c", "trap '' TERM; python task.py"), reduces(1))
    job.hold("map")
    directory = tmp_path / "kept"
    options = [] if how == "plain" else ["--dir", directory]
    with job.run(*options) as dead:
        job.until("a task", job.starts)
        dead.kill9_only()
        again = [] if how == "plain" else [how, directory]
        with job.run(*again, job=how != "--resume") as run:
            job.until("another try", lambda: job.starts()["map-0"] == 2)
            assert dead.processes() == []
            job.release("map")
            run.wait()
    job.check_result(1)
    job.check_clean("result")
    assert not directory.exists()


def test_a_plain_run_clears_what_dead_runs_left(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(1), reduces(1, output={"files": "new/result"}))
    other = JobDirectory(tmp_path / "other", maps(2), reduces(1))
    other.temporary.rmdir()
    other.temporary = job.temporary
    job.hold("reduce-end")
    with job.run() as run:
        job.until("a reduce task", lambda: job.starts()["reduce-0"])
        job.until("its file", lambda: list(job.path.rglob("part-*")))
        run.kill9()
    assert any(job.temporary.iterdir())
    (unpublished,) = (job.path / "new").iterdir()
    assert unpublished.name.startswith(".result.crossdock")
    run = other.finish()
    assert "cleared what a dead run left in" in run.err
    other.check_clean("result")
    other.check_result(2)
    job.check_clean()


def test_a_given_directory_of_a_dead_run_is_used_anew(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(1), reduces(1))
    directory = tmp_path / "kept"
    directory.mkdir()
    job.hold("map")
    with job.run("--dir", directory) as run:
        job.until("a task", job.starts)
        run.kill9()
    with job.run("--dir", directory) as run:
        job.until("a task", lambda: sum(job.starts().values()) == 2)
        refused = job.finish("--dir", directory, code=2)
        assert "a run is under way" in refused.err
        job.release("map")
        run.wait()
    job.check_result(1)
    assert list(directory.iterdir()) == [], "it was there before"


def nanny_of(run: Run) -> psutil.Process:
    [found] = run.find("nanny.py")
    return found


def test_a_killed_nanny_ends_the_run_and_nothing_is_left(tmp_path: Path) -> None:
    job = JobDirectory(
        tmp_path, maps(2, "sh", "-c", "sleep 1000 & exec python task.py"), reduces(1)
    )
    job.hold("map")
    with job.run() as run:
        job.until("the tasks", lambda: len(job.starts()) == 2)
        nanny_of(run).kill()
        run.wait(1)
    assert "the process that keeps this run's processes was killed" in run.err
    job.check_clean()


def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    job = JobDirectory(tmp_path, maps(3), reduces(2))
    job.hold("map-2")
    with job.run() as run:
        job.until("two tasks done", lambda: len(job.done()) == 2)
        first = run.worker()
        first.kill()
        job.release("map-2")
        run.wait()
    job.check_result()
    job.check_clean("result")
    assert job.starts()["map-0"] == job.starts()["map-1"] == 1


def lose_disk(run: Run, directory: Path) -> None:
    """Kill the worker and take away all that it has; it comes back with nothing."""
    run.worker().suspend()  # so that it is not restarted before its disk is gone
    trash = directory / "lost"
    (directory / "worker").rename(trash)
    run.worker().kill()
    shutil.rmtree(trash)


@pytest.mark.parametrize("changing", [False, True], ids=["the same again", "something else"])
def test_maps_whose_output_is_lost_run_again(tmp_path: Path, *, changing: bool) -> None:
    job = JobDirectory(tmp_path, maps(3), reduces(2, retries=1))
    directory = tmp_path / "kept"
    if changing:
        job.changing("map")
    job.hold("reduce-1")
    with job.run("--dir", directory) as run:
        job.until("one reduce task done", lambda: job.done()["reduce-0"])
        lose_disk(run, directory)
        job.release("reduce-1")
        run.wait()
    job.check_result()
    job.check_clean("result")
    starts = job.starts()
    assert [starts[f"map-{i}"] for i in range(3)] == [2, 2, 2]
    assert starts["reduce-0"] == (2 if changing else 1)


def test_output_that_is_lost_between_two_runners(tmp_path: Path) -> None:
    job = JobDirectory(
        tmp_path,
        maps(2),
        maps(2, name="second", inputs=[{"stage": "map"}]),
        reduces(2, of="second"),
    )
    job.changing("map")
    directory = tmp_path / "kept"
    job.hold("reduce")
    with job.run("--dir", directory) as run:
        job.until("the last stage", lambda: job.starts()["reduce-0"])
        run.kill9()
    shutil.rmtree(directory / "worker")
    job.release("reduce")
    job.finish("--resume", directory, job=False)
    job.check_result(2, of="second")
    done = job.done()  # tries that find their input lost do not get so far
    assert [done[f"{s}-{i}"] for s in ("map", "second") for i in range(2)] == [2, 2, 2, 2]


def kill_and_resume(tmp_path: Path, seed: int, kills: int) -> None:
    """Kill the runner at random moments, and go on until the job is done."""
    print(f"seed {seed}")
    moment = random.Random(seed)
    job = JobDirectory(
        tmp_path,
        maps(4),
        maps(3, name="second", inputs=[{"stage": "map"}]),
        reduces(3, of="second"),
    )
    job.changing("map")
    directory = tmp_path / "kept"
    options: list[object] = ["--dir", directory]
    named = True
    for _ in range(kills):
        with job.run(*options, job=named) as run:
            eventually(lambda: run.find("nanny.py") or run.process.poll() is not None, seconds=60)
            time.sleep(moment.uniform(0, 4))
            if run.process.poll() is not None:
                break
            run.kill9()
        if (directory / "run.json").exists():
            options, named = ["--resume", directory], False
    if not job.result.exists() or directory.exists():
        job.finish(*options, job=named)
    job.check_result(3, of="second")
    job.check_clean("result")
    assert not directory.exists()


@pytest.mark.parametrize("seed", [1, 2])
def test_runners_killed_at_random_moments(tmp_path: Path, seed: int) -> None:
    kill_and_resume(tmp_path, seed, kills=2)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 110))
def test_runners_killed_at_many_random_moments(tmp_path: Path, seed: int) -> None:
    kill_and_resume(tmp_path, seed, kills=12)


@pytest.mark.soak
def test_a_worker_that_does_not_start_is_explained_and_the_run_can_go_on_later(
    tmp_path: Path,
) -> None:
    job = JobDirectory(tmp_path, maps(1), reduces(1))
    directory = tmp_path / "kept"
    job.hold("reduce")
    with job.run("--dir", directory) as run:
        job.until("the last stage", lambda: job.starts()["reduce-0"])
        run.kill9()
    (directory / "worker").rename(tmp_path / "aside")
    (directory / "worker").write_text("in the way")
    run = job.finish("--resume", directory, job=False, code=2)
    assert "the shuffle worker does not stay up: exit code" in run.err
    assert str(directory / "worker") in run.err, "its log is not shown"
    (directory / "worker").unlink()
    (tmp_path / "aside").rename(directory / "worker")
    job.release("reduce")
    job.finish("--resume", directory, job=False)
    job.check_result(1)
    assert job.starts()["map-0"] == 1
