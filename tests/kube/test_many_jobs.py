"""Many jobs cost little: memory, and writes of the operator."""

import psutil
import pytest
from audit import asked
from control_plane import ControlPlane
from scenes import Scene
from specs import job, stage

from harness import eventually

MOST_RSS_MIB = 250
"""Of the operator with 2,000 jobs."""


@pytest.mark.parametrize(
    "count", [100, pytest.param(2_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_each_is_looked_at_and_written_once(scene: Scene, plane: ControlPlane, count: int) -> None:
    """By an operator that sees them first, and not at all by one that sees them again."""
    begun = plane.audit_log.stat().st_size
    for n in range(count):
        body = job(f"job-{n:04}", clusterRef={"name": "nowhere"}, stages=[stage()])
        scene.admin.create(scene.namespace, "shufflejobs", body)
    path = scene.path("shufflejobs", "").rstrip("/")

    def all_told() -> bool:
        jobs = scene.admin.ask("GET", path)["items"]
        return sum(bool(each.get("status")) for each in jobs) == count

    # What each may then do is measured by benchmarks/operator.py; here all wait for a cluster.
    eventually(all_told, seconds=600, what="a status of each job")
    # A write is logged some time after it is answered.
    eventually(lambda: writes(scene, plane, begun) >= count, what="their writes")
    assert writes(scene, plane, begun) == count
    assert scene.operator.terminate() == 0
    begun = plane.audit_log.stat().st_size
    scene.operator.start()
    eventually(lambda: looked_at(scene) >= count, seconds=600, what="a look at each job")
    assert writes(scene, plane, begun) == 0
    rss = psutil.Process(scene.operator.pid).memory_info().rss / 2**20
    assert rss <= MOST_RSS_MIB


def looked_at(scene: Scene) -> float:
    looks = "crossdock_operator_reconciles_total"
    return scene.operator.metric(looks, kind="ShuffleJob", outcome="done")


def writes(scene: Scene, plane: ControlPlane, begun: int) -> int:
    """Return how often the operator wrote to ShuffleJobs since."""
    calls = asked(plane.audit_log, skip_bytes=begun)
    return sum(
        call.writes and call.namespace == scene.namespace
        for call in calls
        if call.resource.partition("/")[0] == "shufflejobs"
    )
