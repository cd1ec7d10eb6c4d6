"""The operator's page in a browser. CROSSDOCK_SCREENSHOT=docs/page.png keeps what it looks like."""

import json
import os
import random
from pathlib import Path

import pytest
from administrator import Administrator
from chromium import Chromium
from control_plane import ControlPlane
from persons import account, allow
from staged_jobs import JobScene, job_scene

from harness import connect_all

pytestmark = pytest.mark.usefixtures("_controllers")
PARTITIONS = 256


def fill(scene: JobScene, uid: str) -> None:
    """Write a shuffle with partitions of many sizes, and one that is much larger."""
    sizes = random.Random(8)
    with connect_all(scene.workers) as client, client.job(uid) as handle:
        shuffle = handle.shuffle("orders", partitions=PARTITIONS)
        for map_id in range(4):
            with shuffle.writer(map_id=map_id, attempt=0) as writer:
                for partition in range(PARTITIONS):
                    size = int(sizes.lognormvariate(8.5, 0.5))
                    writer.write(partition, b"x" * (60_000 if partition == 7 else size), rows=1)


def make_ready(scene: JobScene) -> None:
    """Say of the worker pods that they are ready, so that there is nothing to look at."""
    pods = f"/api/v1/namespaces/{scene.namespace}/pods"
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    for n in range(2):
        path = f"{pods}/main-worker-{n}"
        scene.until(f"pod {n}", lambda path=path: scene.admin.get(path))
        scene.admin.merge(f"{path}/status", {"status": status})


def shown(name: str) -> str:
    """Return the question whether somebody sees an element."""
    return f"document.getElementById('{name}')?.getClientRects().length > 0"


def type_in(browser: Chromium, token: str) -> None:
    browser.js(f"document.getElementById('token').value = {json.dumps(token)}")
    browser.js("document.getElementById('login').requestSubmit()")


def test_somebody_looks_at_a_job_from_begin_to_end(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    token = account(admin, namespace, "somebody")
    allow(admin, namespace, "somebody", "shufflejobs", verbs=["list"])
    with (
        job_scene(plane, admin, namespace, tmp_path) as scene,
        Chromium(tmp_path / "chromium", width=960) as browser,
    ):
        scene.hold("count")
        uid = scene.apply()["metadata"]["uid"]
        scene.wait(lambda s: s.get("progress") == "1/2", what="the first stage to be done")
        fill(scene, uid)
        make_ready(scene)
        scene.wait(lambda s: s.get("workerBytes"), what="what it has on disks")

        browser.open(f"{scene.operator.url}/ui/")
        browser.until(shown("login"), what="it asks for a token")
        assert not browser.js(shown("main"))
        type_in(browser, "wrong")
        browser.until("document.body.innerText.includes('does not take this token')")
        type_in(browser, token)
        browser.until(r"/split\s+done/.test(document.querySelector('#jobs tbody')?.innerText)")
        assert not browser.js(shown("login")), "it is let in"
        browser.until("document.querySelector('#clusters')?.innerText.includes('Ready')")
        browser.until("document.querySelector('#workers')?.innerText.includes('serving')")
        browser.js("document.querySelector('#jobs button').click()")
        button = "[...document.querySelectorAll('#job button')].find(b => b.innerText == 'orders')"
        browser.until(f"{button} !== undefined", what="its shuffles")
        browser.js(f"{button}.click()")
        browser.until("document.querySelectorAll('#job rect').length > 1", what="a histogram")
        assert f"{PARTITIONS} partitions from 4 maps" in browser.js("document.body.innerText")
        assert token not in browser.js("document.documentElement.outerHTML")
        picture = browser.screenshot()
        assert picture.startswith(b"\x89PNG")
        Path(os.environ.get("CROSSDOCK_SCREENSHOT", tmp_path / "page.png")).write_bytes(picture)

        scene.release("count")
        browser.until("document.querySelector('#jobs tbody').innerText.includes('Succeeded')",
                      what="its end, without another look")  # fmt: skip
        admin.ask("DELETE", scene.path())
        browser.until("document.querySelector('#jobs tbody') === null", what="it is gone")
        assert not browser.problems
