"""Processes and their nanny, without a job."""

import os
import queue
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from crossdock.stages.backend import TaskProcess
from crossdock.stages.events import TaskEnded, TaskId
from crossdock.stages.processes import ProcessBackend, Processes, describe_exit
from harness import WAIT_SECONDS, eventually


class Keeper:
    """Processes, with what is heard of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes = Processes()
        self.ends: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def start(self, name: str, *argv: str, done: Path | None = None) -> None:
        self.processes.start(
            name,
            argv,
            env=dict(os.environ),
            cwd=self.directory,
            log=self.log(name),
            done=done,
            on_end=lambda how: self.ends.put((name, how)),
        )

    def shell(self, name: str, script: str, done: Path | None = None) -> None:
        self.start(name, "sh", "-c", script, done=done)

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def pid_in(self, name: str) -> int:
        """Return a pid that a process writes as the first line of its log."""
        lines = eventually(
            lambda: self.log(name).exists() and self.log(name).read_text().splitlines()
        )
        return int(lines[0])

    def ended(self) -> tuple[str, str]:
        return self.ends.get(timeout=WAIT_SECONDS)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    found = Keeper(tmp_path)
    yield found
    found.processes.close()


def gone(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_how_processes_end_is_told(keeper: Keeper, tmp_path: Path) -> None:
    done, not_done = tmp_path / "done", tmp_path / "not-done"
    keeper.shell("good", "echo hello; echo oh >&2", done)
    keeper.shell("bad", "exit 3", not_done)
    keeper.shell("killed", "kill -9 $$", not_done)
    keeper.start("none", "no-such-command")
    keeper.start("zero", "echo", "\0")
    ends = dict(keeper.ended() for _ in range(5))
    assert ends.pop("good") == ""
    assert ends.pop("bad") == "exit code 3"
    assert ends.pop("killed") == "killed by SIGKILL"
    assert "no-such-command" in ends.pop("none")
    assert "null byte" in ends.pop("zero")
    assert keeper.log("good").read_text() == "hello\noh\n"
    assert done.exists()
    assert not not_done.exists()


def test_a_success_that_cannot_be_noted_is_none(keeper: Keeper, tmp_path: Path) -> None:
    keeper.shell("good", "true", tmp_path / "nowhere" / "done")
    assert "cannot note that it succeeded" in keeper.ended()[1]
    keeper.shell("next", "true")
    assert keeper.ended() == ("next", "")


def test_what_a_process_leaves_in_its_group_goes_with_it(keeper: Keeper) -> None:
    keeper.shell("parent", "sleep 1000 & echo $!")
    assert keeper.ended() == ("parent", "")
    eventually(lambda: gone(keeper.pid_in("parent")), what="the end of the child")


def test_a_kill_is_polite_first_and_then_is_not(keeper: Keeper) -> None:
    keeper.shell("polite", "trap 'echo bye; exit 9' TERM; echo $$; sleep 1000 & wait")
    keeper.shell("stubborn", "trap '' TERM; echo $$; while :; do sleep 1; done")
    for name in ("polite", "stubborn"):
        keeper.pid_in(name)
        keeper.processes.kill(name)
    ends = dict(keeper.ended() for _ in range(2))
    assert ends == {"polite": "exit code 9", "stubborn": "killed by SIGKILL"}
    keeper.processes.kill("never started")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux adopts orphans")
def test_close_ends_also_what_left_its_group(keeper: Keeper) -> None:
    keeper.shell("parent", "setsid sh -c 'echo $$; exec sleep 1000' & exec sleep 1000")
    pid = keeper.pid_in("parent")
    assert not gone(pid)
    keeper.processes.close()
    assert gone(pid)
    assert keeper.ended()[0] == "parent"
    keeper.processes.close()


def test_when_the_nanny_is_killed_everything_ends_and_is_told(keeper: Keeper) -> None:
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    keeper.processes.watch(told.put)
    keeper.shell("parent", "sleep 1000 & echo $!; wait")
    child = keeper.pid_in("parent")
    nanny = psutil.Process(child).parents()[1]
    assert nanny.pid in {p.pid for p in psutil.Process().children()}
    nanny.send_signal(signal.SIGTERM)  # not by this: it is for the runner to say
    nanny.kill()
    why = told.get(timeout=WAIT_SECONDS)
    assert keeper.ended() == ("parent", why)
    eventually(lambda: gone(child), what="the child's end")
    assert not keeper.processes.alive
    keeper.shell("late", "true")
    assert keeper.ended() == ("late", why)
    keeper.processes.watch(told.put)
    assert told.get(timeout=WAIT_SECONDS) == why


def test_exits_in_words() -> None:
    assert describe_exit(0) == ""
    assert describe_exit(7) == "exit code 7"
    assert describe_exit(-signal.SIGSEGV) == "killed by SIGSEGV"
    assert describe_exit(-300) == "killed by signal 300"


def test_slots_are_a_bound_and_tasks_wait_in_order(keeper: Keeper, tmp_path: Path) -> None:
    ends: queue.SimpleQueue[TaskEnded] = queue.SimpleQueue()
    backend = ProcessBackend(keeper.processes, slots=2, logs=tmp_path, on_end=ends.put)
    script = 'mkdir "running-$N"; while [ ! -e go ]; do sleep 0.02; done; rmdir "running-$N"'

    def start(number: int) -> TaskId:
        task = TaskId("s", number, number)
        env = {**os.environ, "N": str(number)}
        argv = ["sh", "-c", f"echo task {number}; {script}"]
        backend.start(TaskProcess(task=task, argv=argv, env=env, cwd=tmp_path))
        return task

    tasks = [start(n) for n in range(5)]
    eventually(lambda: len(list(tmp_path.glob("running-*"))) == 2)
    assert backend.running("s") == 2
    assert backend.running("other") == 0
    backend.kill(tasks[3])
    assert ends.get(timeout=WAIT_SECONDS) == TaskEnded(tasks[3], "ended before it ran")
    (tmp_path / "go").touch()
    finished = [ends.get(timeout=WAIT_SECONDS) for _ in range(4)]
    assert {e.task.index for e in finished} == {0, 1, 2, 4}
    assert all(e.failure is None for e in finished)
    assert backend.log_tail(tasks[0], 5) == ["task 0"]
    assert backend.log_tail(tasks[3], 5) == []
