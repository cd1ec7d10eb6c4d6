"""`crossdock run` on a store that fails: runner, worker and tasks are killed, and nothing stays."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from chaos_proxy import ChaosProxy, Trap, Weather
from runs import JobDirectory, Run, maps, reduces
from servers import ENVIRONMENT, S3Server, running

from harness import eventually

SEED = int(os.environ.get("CROSSDOCK_CHAOS_SEED", "0"))
FAULT_RATE = 0.05
SETTLE_SECONDS = 2.0
VICTIMS = [("worker",), ("task",), ("runner",), ("worker", "runner"), ("worker", "task")]
WHEN = ("before", "after", "late")
WRITES = ("intents", "segments", "records")
DELETES = ("list", "list uploads", "delete")
ROUNDS = 6
LONG_ROUNDS = 60

Note = Callable[[str, object], None]


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running("versitygw", tmp_path_factory.mktemp("versitygw")) as found:
        yield found


def options_for(proxy: ChaosProxy, server: S3Server, folder: str) -> list[str]:
    pairs = [
        f"endpoint_url={proxy.endpoint}", f"region={server.region}", "path_style=true",
        "stall_seconds=0.8", "deadline_seconds=60",
    ]  # fmt: skip
    store = ["--store", f"s3://{server.bucket}/{folder}"]
    settle = ["--store-settle-seconds", str(SETTLE_SECONDS)]
    return [*store, *settle, *(part for pair in pairs for part in ("--store-option", pair))]


def strike(run: Run, victims: tuple[str, ...]) -> list[str]:
    """Kill parts of a run; return which lived."""
    killed = []
    for victim in victims:
        with suppress(psutil.Error, ValueError, IndexError):
            match victim:
                case "worker":
                    run.worker().kill()
                case "task":
                    run.find("task.py")[0].kill()
                case _:
                    run.process.kill()
            killed.append(victim)
    return killed


def play(server: S3Server, path: Path, seed: int) -> tuple[Counter[str], int]:
    """Play one round; return who was killed, and how many faults there were."""
    rng = random.Random(seed)
    victims, when = rng.choice(VICTIMS), rng.choice(WHEN)
    kind = rng.choice(WRITES if seed % 3 else DELETES)
    if kind in DELETES:
        victims = ("runner",)  # all others have ended
    print(f"replay with CROSSDOCK_CHAOS_SEED={seed}: {victims} {when} {kind}")
    folder, weather = f"run-{seed}", Weather(seed, FAULT_RATE)
    kills: Counter[str] = Counter()
    path.mkdir()
    job = JobDirectory(path, maps(3), reduces(2), persistence="Eager")
    job.hold("reduce")
    with ChaosProxy(server.endpoint, "run", weather) as proxy:
        options = options_for(proxy, server, folder)
        with job.run(*options) as run:
            trap = Trap(
                "default",
                kind,
                when,
                lambda _: kills.update(strike(run, victims)),
            )
            weather.traps.append(trap)
            eventually(  # where all is slow most requests come too late to take effect
                lambda: weather.seen["records"] or run.process.poll() is not None,
                seconds=400, what="records",
            )  # fmt: skip
            job.release("reduce")
            code = run.process.wait(300)
            eventually(lambda: not run.processes(), what="the end of all of it")
            said = run.read()
        if kills["runner"]:  # the next run clears what it has left
            job.finish(*options, "--overwrite")
        else:
            assert code == 0, said
        job.check_result()
        job.check_clean("result")
    found = [key for key in server.left() if f"/{folder}/default/" in f"/{key}"]
    assert not found, found
    return kills, weather.injected


def rounds(server: S3Server, path: Path, first: int, count: int) -> str:
    """Play some at once; return a summary."""
    with ThreadPoolExecutor(3) as pool:
        played = list(pool.map(lambda n: play(server, path / str(n), first + n), range(count)))
    kills: Counter[str] = sum((k for k, _ in played), Counter())
    faults = sum(f for _, f in played)
    each = ", ".join(f"{n} {who}" for who, n in sorted(kills.items()))
    return (
        f"{count} runs, {kills.total()} kills ({each}), {faults} faults injected, "
        "left: 0 objects, 0 uploads, 0 files"
    )


@pytest.mark.timeout(1200)
def test_a_run_leaves_nothing_whoever_is_killed(
    server: S3Server, tmp_path: Path, record_property: Note
) -> None:
    line = rounds(server, tmp_path, SEED, ROUNDS)
    assert " 0 kills" not in line
    record_property("chaos", line)
    print(line)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_runs_leave_nothing(server: S3Server, tmp_path: Path, record_property: Note) -> None:
    line = rounds(server, tmp_path, SEED + 1000, LONG_ROUNDS)
    record_property("chaos", line)
    print(line)
