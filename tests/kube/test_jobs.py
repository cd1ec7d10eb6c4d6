"""ShuffleJobs with stages, run by an operator on a real control plane with real tasks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from administrator import Administrator
from control_plane import ControlPlane
from staged_jobs import MAPS, JobScene, condition, job_scene

pytestmark = pytest.mark.usefixtures("_controllers")


@pytest.fixture
def scene(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> Iterator[JobScene]:
    with job_scene(plane, admin, namespace, tmp_path) as found:
        yield found


def test_a_staged_job_from_apply_to_complete(scene: JobScene) -> None:
    uid = scene.apply()["metadata"]["uid"]
    status = scene.wait_phase("Succeeded")
    assert condition(status, "Complete")["status"] == "True"
    assert condition(status, "Failed")["status"] == "False"
    assert status["progress"] == "2/2"
    rows = {row["name"]: row for row in status["stages"]}
    assert (rows["split"]["tasks"], rows["split"]["done"]) == (MAPS, MAPS)
    assert (rows["count"]["phase"], rows["count"]["attempts"]) == ("Done", 2)
    assert rows["count"]["bytes"] > 0
    assert status["connectionSecret"] == "words-connection"
    assert sum(scene.starts().values()) == MAPS + 2
    scene.check_counts(uid)
    scene.until("no Job is left", lambda: not scene.jobs())
    scene.wait(lambda s: condition(s, "Running")["reason"] == "Ended")
    assert scene.events() == {"Accepted": 1, "StageRuns": 2, "StageDone": 2, "Complete": 1}
