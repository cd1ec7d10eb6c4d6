"""What jobs take up, in the statuses of ShuffleJobs and their ShuffleCluster."""

import base64
import os
from pathlib import Path

import pytest
from administrator import OURS, Administrator, Object
from control_plane import ControlPlane
from specs import STORE, job
from staged_jobs import JobScene, condition, job_scene

from harness import connect_all

pytestmark = pytest.mark.usefixtures("_controllers")
BYTES = 100_000
PRICES = "1,0,0"
"""A thousand writes for a dollar."""


def engine(scene: JobScene, name: str, persistence: str) -> None:
    """Make a job without stages, and write something for it."""
    body = job(name, clusterRef={"name": "main"}, persistence=persistence)
    uid = scene.admin.create(scene.namespace, "shufflejobs", body)["metadata"]["uid"]
    scene.wait_phase("Ready", name)
    path = f"/api/v1/namespaces/{scene.namespace}/secrets/{name}-connection"
    token = base64.b64decode(scene.admin.ask("GET", path)["data"]["token"]).decode()
    with (
        connect_all(scene.workers, token=token) as client,
        client.job(uid) as handle,
        handle.shuffle("exchange", partitions=2).writer(map_id=0) as writer,
    ):
        writer.write(0, os.urandom(BYTES))


def usage(scene: JobScene) -> Object:
    path = f"{OURS}/namespaces/{scene.namespace}/shuffleclusters/main"
    found: Object = scene.admin.ask("GET", path).get("status", {}).get("usage") or {}
    return found


def test_whether_data_is_durable_and_what_it_costs(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    options = {"store": STORE.as_uri(), "store-prices": PRICES}
    with job_scene(plane, admin, namespace, tmp_path, worker_options=options) as scene:
        engine(scene, "safe", "Eager")
        engine(scene, "quick", "Never")
        safe = scene.wait(
            lambda s: (
                condition(s, "DataDurable").get("reason") == "Persisted"
                and s.get("storeBytes") == BYTES
                and float(s["estimatedCost"]) > 0
            ),
            "safe",
        )
        assert condition(safe, "DataDurable")["status"] == "True"
        assert safe["diskOnlyBytes"] == 0
        assert safe["storeRequests"] > 0
        quick = scene.wait(
            lambda s: (
                condition(s, "DataDurable").get("reason") == "OnDisks"
                and s.get("diskOnlyBytes", 0) >= BYTES
            ),
            "quick",
        )
        assert "persistence is Never" in condition(quick, "DataDurable")["message"]
        assert (quick["storeBytes"], quick["estimatedCost"]) == (0, "0.0000")

        def adds_up() -> bool:
            """Whether the cluster's numbers, which are of another time, are those of its jobs."""
            found = usage(scene)
            held = (found.get("storeBytes"), found.get("diskOnlyBytes"))
            return (
                held == (BYTES, quick["diskOnlyBytes"])
                and found["storeRequests"] >= safe["storeRequests"]
                and float(found["estimatedCost"]) >= float(safe["estimatedCost"])
            )

        scene.until("the cluster's numbers", adds_up)
