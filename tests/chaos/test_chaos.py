"""No orphans: processes are killed at exact moments, and nothing of their jobs stays."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from chaos_proxy import ChaosProxy, Weather
from chaos_rounds import POINTS, WORK_SECONDS, Plan, Point, Round, Tally, plans
from chaos_scene import CLUSTER, LiveJob, Scene, client_of, scene_on
from servers import ENVIRONMENT, running

from harness import eventually

SEED = int(os.environ.get("CROSSDOCK_CHAOS_SEED", "0"))
ONLY = os.environ.get("CROSSDOCK_CHAOS_ROUNDS", "")
SERVER = os.environ.get("CROSSDOCK_CHAOS_SERVER", "")
"""Of all rounds: versitygw, moto or minio."""
FAULT_RATE = 0.08
AT_ONCE = 6
ROUNDS = 20
LONG_ROUNDS = 100
LONG_PARTS = 10
PARTS = 2
TRIES = 8
"""How often a round is played until somebody is killed at its point."""

Note = Callable[[str, object], None]


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def chaos(
    kind: str,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    count: int,
    points: Sequence[Point] = POINTS,
) -> Tally:
    """Play rounds of a seed, several at once, beside a job that lives."""
    tally = Tally(kind)
    chosen = plans(seed, count, points)
    if ONLY:
        chosen = [p for p in chosen if str(p.number) in ONLY.split(",")]
    with (
        running(kind, tmp_path_factory.mktemp(kind)) as server,
        scene_on(server, "rounds", seed=seed, rate=FAULT_RATE) as scene,
        ExitStack() as stack,
    ):
        live = LiveJob(scene, seed)
        stack.callback(live.close)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            problems = play_all(scene, chosen, live, tally, pool)
        tally.faults = scene.weather.injected
        tally.checked_bytes += live.check()
        live.job.end()
        with suppress(AssertionError):
            eventually(lambda: not scene.left(), seconds=WORK_SECONDS)
        tally.left = scene.left()
        print(tally.line())
        broken = scene.weather.broken
        text = "\n\n".join(problems)
        assert not problems, f"{text}\n\nlater than a store may be: {broken}"
        never = sorted(tally.points - tally.fired)
        assert ONLY or not never, f"nobody was ever killed at {never}: {tally.line()}"
        assert not tally.left, f"{tally.left}"
        scene.clear_probes()
        assert server.left() == set()
    return tally


def play_all(
    scene: Scene, chosen: list[Plan], live: LiveJob, tally: Tally, pool: Executor
) -> list[str]:
    """Play rounds, those again at whose points nobody was killed; return what is wrong."""
    problems: list[str] = []
    tally.points = {plan.point for plan in chosen}
    for _ in range(TRIES):
        tally.rounds += len(chosen)
        problems += [p for p in pool.map(lambda p: play(scene, p, live, tally), chosen) if p]
        missed = {p.point: p for p in chosen if p.point not in tally.fired}
        chosen = [plan.once_more() for plan in missed.values()]
        if problems or not chosen:
            break
    return problems


def play(scene: Scene, plan: Plan, live: LiveJob, tally: Tally) -> str:
    """Play one round; return what is wrong, and how to see it again."""
    try:
        Round(scene, plan, tally).play()
        checked = live.check()
        with tally.lock:
            tally.checked_bytes += checked
    except AssertionError as error:
        return (
            f"{plan}\n{error}\nreplay: CROSSDOCK_CHAOS_SEED={plan.seed} pytest tests/chaos "
            f"(alone: CROSSDOCK_CHAOS_ROUNDS={plan.number} as well)"
        )
    return ""


@pytest.mark.parametrize("kind", ["versitygw", pytest.param("minio", marks=pytest.mark.servers)])
def test_an_upload_that_is_left_is_seen(tmp_path: Path, kind: str) -> None:
    """Else finding none would say nothing."""
    weather = Weather(0, 0.0)
    with (
        running(kind, tmp_path) as server,
        ChaosProxy(server.endpoint, "door", weather) as door,
        ThreadPoolExecutor(1) as revivers,
    ):
        scene = Scene(server, "rounds", weather, [], door, [], revivers)
        keys = [f"rounds/{CLUSTER}/{uid}/0000/a/0/segments/r" for uid in ("job-1", "job-10")]
        s3 = client_of(door.endpoint, server)
        begun = [s3.create_multipart_upload(Bucket=server.bucket, Key=key) for key in keys]
        assert scene.left("job-1").uploads == keys[:1]
        assert sorted(scene.left().uploads) == keys
        s3.abort_multipart_upload(Bucket=server.bucket, Key=keys[0], UploadId=begun[0]["UploadId"])
        assert not scene.left("job-1")
        assert scene.left().uploads == keys[1:]
        s3.close()
        scene.close()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_left_whoever_is_killed(
    tmp_path_factory: pytest.TempPathFactory, record_property: Note, part: int
) -> None:
    """Each part has a half of all points, and is not done before all of them have been met."""
    points = POINTS[part::PARTS]
    tally = chaos(SERVER or "versitygw", tmp_path_factory, SEED + part, ROUNDS, points)
    record_property("chaos", tally.line())
    assert ONLY or tally.fired == set(points)
    assert ONLY or tally.kills.total() >= ROUNDS * 3 // 4


@pytest.mark.soak
@pytest.mark.servers
@pytest.mark.timeout(3600)
def test_nothing_is_left_on_a_server_that_lists_no_uploads(
    tmp_path_factory: pytest.TempPathFactory, record_property: Note
) -> None:
    """There intents alone say where to look; what is left is counted on the server's own disk."""
    tally = chaos("minio", tmp_path_factory, SEED + 2000, LONG_ROUNDS)
    record_property("chaos", tally.line())


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(LONG_PARTS))
def test_nothing_is_left_in_many_rounds(
    tmp_path_factory: pytest.TempPathFactory, record_property: Note, part: int
) -> None:
    kind = SERVER or ("moto" if part % 4 == 3 else "versitygw")
    tally = chaos(kind, tmp_path_factory, SEED + 1000 + part, LONG_ROUNDS)
    record_property("chaos", tally.line())
