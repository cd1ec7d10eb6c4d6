"""How many shuffles a worker holds, and what it says when it cannot make their files."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import crossdock
from crossdock.errors import ConfigError
from crossdock_worker.settings import Limits
from harness import StartWorker, WorkerProcess, eventually
from raw import Line, Peer, Target


def shuffles_of(worker: WorkerProcess, count: int) -> list[Target]:
    """Register a job; return shuffles of it."""
    target = Target(Peer(worker.url, ""), "many")
    assert target.register().status in {200, 201}
    return [replace(target, name=f"shuffle-{i}") for i in range(count)]


def gauge(worker: WorkerProcess, name: str) -> float:
    text = worker.request("GET", "/metrics").body.decode()
    lines = dict(x.split(" ") for x in text.splitlines() if x.startswith("crossdock_shuffles"))
    return float(lines[f"crossdock_{name}"])


both_ways = pytest.mark.parametrize("expect", [False, True], ids=["plain", "expect"])


@both_ways
def test_a_shuffle_too_many_is_pushed_back(start_worker: StartWorker, *, expect: bool) -> None:
    worker = start_worker(max_shuffles=3)
    *taken, further = shuffles_of(worker, 4)
    assert [t.push(t.frame()).status for t in taken] == [200] * 3
    assert (gauge(worker, "shuffles"), gauge(worker, "shuffles_limit")) == (3, 3)
    descriptors = worker.descriptors
    refused = further.push(further.frame(), expect=expect)
    assert (refused.status, refused.code) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert not refused.continued
    assert "the limit is 3" in refused.json()["message"]
    assert "--max-shuffles" in refused.json()["hint"]
    eventually(lambda: worker.descriptors <= descriptors, what="files that a refused push opened")
    assert further.peer.ask("POST", f"{further.path}/frames/list").code == "shuffle_unknown"
    assert taken[0].push(taken[0].frame(map_id=1), expect=expect).status == 200
    assert taken[1].peer.ask("DELETE", taken[1].path).status == 200
    assert further.push(further.frame(), expect=expect).status == 200
    assert taken[1].push(taken[1].frame(), expect=expect).code == "shuffle_released"


def test_a_shuffle_takes_five_descriptors(start_worker: StartWorker) -> None:
    """So many the limit reckons with: three files, and maps of the two that are read."""
    worker = start_worker()
    targets = shuffles_of(worker, 10)
    for target in targets:
        assert target.push(target.frame()).status == 200
        path, _ = target.register_places(target.keys(target.frames()))
        assert target.peer.ask("GET", f"{path}/blocks").status == 200
    eventually(lambda: len(open_logs(worker)) == 50)


def open_logs(worker: WorkerProcess) -> list[str]:
    """Return the paths of shuffles' files, one for each descriptor."""
    found = []
    for link in Path(f"/proc/{worker.pid}/fd").iterdir():
        with suppress(OSError):
            found.append(str(link.readlink()))
    return [path for path in found if "/shuffles/" in path]


def test_first_frames_under_way_count(start_worker: StartWorker) -> None:
    worker = start_worker(max_shuffles=1)
    first, second = shuffles_of(worker, 2)
    data = first.frame()
    with first.peer.line() as line:
        headers = {"Expect": "100-continue"}
        line.send(line.head("PUT", f"{first.path}/frames", length=len(data), headers=headers))
        assert line.reply().status == 100
        with second.peer.line() as other:
            head = other.head("PUT", f"{second.path}/frames", length=len(data), headers=headers)
            other.send(head)
            assert other.reply().status == 100  # there is room yet
            line.send(data)
            assert line.reply().status == 200
            other.send(second.frame())
            assert other.reply().code == "overloaded"


def test_a_restart_keeps_shuffles_above_the_limit(start_worker: StartWorker) -> None:
    worker = start_worker()
    targets = shuffles_of(worker, 4)
    assert [t.push(t.frame()).status for t in targets] == [200] * 4
    worker.restart(max_shuffles=2)
    assert [len(t.frames()) for t in targets] == [1] * 4
    assert targets[3].push(targets[3].frame(map_id=1)).status == 200


def test_a_client_goes_to_a_worker_with_room(start_worker: StartWorker) -> None:
    full, free = start_worker(max_shuffles=1), start_worker()
    options = crossdock.Options(deadline_seconds=20)
    with crossdock.connect([full.url, free.url], options=options) as cluster:
        job = cluster.job("room", owner="runner")
        for i in range(4):
            shuffle = job.shuffle(f"s-{i}", partitions=4)
            with shuffle.writer(map_id=0, attempt=0) as writer:
                for partition in range(4):
                    writer.write(partition, b"x" * 100)
            assert int(shuffle.view({0: 0}).bytes.sum()) == 400


def test_the_limit_follows_the_descriptors() -> None:
    limits = Limits(max_connections=1000)
    assert limits.shuffle_room(20_064) == (20_000 - 4000) // 5
    assert limits.shuffle_room(1024) == 1024 // 10
    assert limits.shuffle_room(4) == 1
    assert limits.shuffle_room(resource.RLIM_INFINITY) > 100_000
    assert Limits(max_shuffles=7).shuffle_room(20_000) == 7
    with pytest.raises(ConfigError, match="--max-shuffles"):
        Limits(max_shuffles=-1)


# -- files that cannot be made -------------------------------------------------------------


@contextmanager
def descriptors_left(worker: WorkerProcess, count: int) -> Iterator[None]:
    """Let the process open so many more files."""
    process = psutil.Process(worker.pid)
    before = process.rlimit(resource.RLIMIT_NOFILE)
    used = {int(p.name) for p in Path(f"/proc/{worker.pid}/fd").iterdir()}
    free = (n for n in range(len(used) + count + 1) if n not in used)
    limit = [n for n, _ in zip(free, range(count + 1), strict=False)][-1]
    process.rlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        process.rlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_lack_of_descriptors_pushes_back(start_worker: StartWorker, left: int) -> None:
    """The first, second or third file of a shuffle cannot be opened; those that can are closed."""
    worker = start_worker()
    (target,) = shuffles_of(worker, 1)
    with Line(worker.url, "") as line:
        alone = b"crossdock_connections 1.0"
        eventually(lambda: alone in line.ask("GET", "/metrics").body)
        with descriptors_left(worker, left):
            refused = line.ask("PUT", f"{target.path}/frames", target.frame())
        assert (refused.status, refused.code) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert "ulimit -n" in refused.json()["hint"]
        assert open_logs(worker) == []
        assert not (worker.data_dir / "jobs/many/shuffles").exists() or not any(
            (worker.data_dir / "jobs/many/shuffles").iterdir()
        )
        assert line.ask("PUT", f"{target.path}/frames", target.frame()).status == 200
    assert "request failed" not in worker.log_text()


def test_a_start_without_enough_descriptors_says_so(start_worker: StartWorker) -> None:
    worker = start_worker()
    targets = shuffles_of(worker, 30)
    assert {t.push(t.frame()).status for t in targets} == {200}
    worker.terminate()
    ended = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *worker.command()],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "ulimit -n" in ended.stderr
    assert "Traceback" not in ended.stderr
