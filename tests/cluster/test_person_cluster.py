"""What a person sees through a real kubelet: `kubectl crossdock logs`, `top`, `ui` and `drain`."""

import http.cookiejar
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kube_client import NAMESPACE, crossdock, get
from tally import MAPS
from words import Words, until_ready

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("installed")]


def test_a_job_is_looked_at_and_a_worker_drained() -> None:
    until_ready(2)
    words = Words("seen")
    words.until_half_mapped()

    (job,) = json.loads(crossdock("jobs", "--output=json"))["jobs"]
    assert job["name"] == "seen"
    said = crossdock("logs", "seen", "draw")
    assert [said.count(f"map {index} drew its words") for index in range(MAPS)] == [1] * MAPS
    top = json.loads(crossdock("top", "--output=json"))
    assert [each["cluster"] for each in top["workers"]] == ["default"] * 2
    with _page() as ask:
        assert "<title>Crossdock</title>" in ask("")
        state = json.loads(ask("api/state"))
        assert [each["name"] for each in state["jobs"]] == ["seen"]
        shuffles = json.loads(ask(f"api/jobs/{NAMESPACE}/seen"))["shuffles"]
        assert [each["name"] for each in shuffles] == ["draw"]

    gone = get("pod", "default-worker-1")["metadata"]["uid"]
    crossdock("drain", "default-worker-1")
    until_ready(2, besides=[gone])
    words.finish()


@contextmanager
def _page() -> Iterator[Callable[[str], str]]:
    """Open the page as `ui` says, and ask it as a browser does that keeps cookies."""
    command = [str(Path(sys.executable).with_name("kubectl-crossdock")), "ui", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar)
        root = url.partition("/open?")[0]
        opener.open(url, timeout=30).close()

        def ask(path: str) -> str:
            with opener.open(f"{root}/ui/{path}", timeout=30) as response:
                return str(response.read().decode())

        yield ask
    finally:
        process.terminate()
        process.communicate(timeout=30)
