"""The operator's page: who is let in, what they see, and how soon, with real tokens."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from administrator import OURS, Administrator
from control_plane import ADMIN_TOKEN, ControlPlane
from operators import OperatorProcess, running_operator
from persons import account, allow
from roles import grant
from specs import cluster, job
from staged_jobs import MAPS, PARTITIONS, job_scene

from harness import eventually

SECONDS = 60.0
Json = dict[str, Any]


class Seen:
    """Two namespaces with a cluster and a job each, and an operator for both."""

    def __init__(
        self, admin: Administrator, namespaces: list[str], operator: OperatorProcess
    ) -> None:
        self.admin = admin
        self.permitted, self.other = namespaces
        self.operator = operator

    def state(self, token: str) -> Json:
        status, text = self.operator.fetch("/ui/api/state", token)
        assert status == 200, text
        found: Json = json.loads(text)
        return found

    def is_settled(self) -> bool:
        """Whether the operator has looked at all, and changes nothing by itself any more."""
        state = self.state(ADMIN_TOKEN)
        phases = [each.get("phase") for each in (*state["clusters"], *state["jobs"])]
        return phases == ["Paused"] * 4

    def jobs(self, token: str) -> set[tuple[str, str]]:
        return {(each["namespace"], each["name"]) for each in self.state(token)["jobs"]}

    def path(self, name: str = "wordcount") -> str:
        return f"{OURS}/namespaces/{self.permitted}/shufflejobs/{name}"


@pytest.fixture
def seen(plane: ControlPlane, admin: Administrator, tmp_path: Path) -> Iterator[Seen]:
    namespaces = [admin.new_namespace() for _ in range(2)]
    grant(admin, namespaces[0], *namespaces)
    for each in namespaces:
        admin.create(each, "shuffleclusters", cluster(paused=True))
        body = job(clusterRef={"name": "main"})
        body["metadata"]["annotations"] = {"crossdock.dev/paused": "true"}
        admin.create(each, "shufflejobs", body)
    with running_operator(plane, tmp_path, namespaces[0], watch=namespaces) as operator:
        found = Seen(admin, namespaces, operator)
        eventually(found.is_settled, seconds=SECONDS, what="all to be known, and paused")
        yield found


def test_nobody_is_told_anything_without_a_token_that_kubernetes_takes(seen: Seen) -> None:
    for token in ("", "wrong", f"{ADMIN_TOKEN}x"):
        for path in ("state", "events", f"jobs/{seen.permitted}/wordcount"):
            status, text = seen.operator.fetch(f"/ui/api/{path}", token)
            assert status == 401, path
            assert "Authorization: Bearer" in json.loads(text)["hint"]
            assert seen.permitted not in text


def test_the_page_itself_is_for_all_and_runs_nothing_but_its_own_script(seen: Seen) -> None:
    for path in ("/ui", "/ui/", "/ui/page.js", "/ui/page.css"):
        with urllib.request.urlopen(seen.operator.request(path), timeout=SECONDS) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            text = answer.read().decode()
        assert "style=" not in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
        assert seen.permitted not in text


def test_somebody_sees_the_namespaces_in_which_they_may_list_jobs(seen: Seen) -> None:
    token = account(seen.admin, seen.permitted, "somebody")
    status, text = seen.operator.fetch("/ui/api/state", token)
    assert status == 403
    assert f"system:serviceaccount:{seen.permitted}:somebody may not list" in text
    another = account(seen.admin, seen.permitted, "another")
    allow(seen.admin, seen.permitted, "another", "shufflejobs", verbs=["list"])
    assert seen.jobs(another) == {(seen.permitted, "wordcount")}
    (shown,) = seen.state(another)["clusters"]
    assert shown["namespace"] == seen.permitted
    status, text = seen.operator.fetch(f"/ui/api/jobs/{seen.other}/wordcount", another)
    assert status == 403
    assert f"may not list shufflejobs in the namespace {seen.other}" in text
    status, _ = seen.operator.fetch(f"/ui/api/clusters/{seen.other}/main/workers", another)
    assert status == 403
    status, _ = seen.operator.fetch(f"/ui/api/jobs/{seen.permitted}/nobody", another)
    assert status == 404, "of what may be seen it is told that it is not there"


@contextmanager
def events(seen: Seen, token: str) -> Iterator[Iterator[Json]]:
    """Give the news of a stream, as they come."""

    def read(answer: Any) -> Iterator[Json]:
        for line in answer:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))

    with urllib.request.urlopen(
        seen.operator.request("/ui/api/events", token), timeout=SECONDS
    ) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield read(answer)


def test_what_changes_is_told_as_it_changes_and_only_that(seen: Seen) -> None:
    token = account(seen.admin, seen.permitted, "watcher")
    allow(seen.admin, seen.permitted, "watcher", "shufflejobs", verbs=["list"])
    with events(seen, token) as news:
        first = next(news)
        assert len(first["jobs"]) == len(first["clusters"]) == 1
        seen.admin.create(seen.other, "shufflejobs", job("hidden"))
        seen.admin.create(seen.permitted, "shufflejobs", job("second"))
        told = [each for batch in _until(news, "second") for each in batch["jobs"]]
        assert {each["namespace"] for each in told} == {seen.permitted}
        assert not {"wordcount", "hidden"} & {each["name"] for each in told}
        seen.admin.ask("DELETE", seen.path("second"))
        gone = next(batch for batch in news if batch["gone"])
        assert gone["gone"] == [["ShuffleJob", seen.permitted, "second"]]


def _until(news: Iterator[Json], name: str) -> Iterator[Json]:
    for batch in news:
        yield batch
        if any(each["name"] == name for each in batch["jobs"]):
            return


def test_many_viewers_cost_the_api_server_a_review_each_and_no_list(
    seen: Seen, plane: ControlPlane
) -> None:
    tokens = [account(seen.admin, seen.permitted, f"viewer-{n}") for n in range(3)]
    for n, token in enumerate(tokens):
        allow(seen.admin, seen.permitted, f"viewer-{n}", "shufflejobs", verbs=["list"])
        assert len(seen.jobs(token)) == 1
    calls = "crossdock_operator_api_calls_total"
    before = seen.operator.metric(calls, resource="tokenreviews")
    lists = seen.operator.metric(calls, resource="shufflejobs", verb="list")
    for token in tokens * 5:
        seen.jobs(token)
    assert seen.operator.metric(calls, resource="tokenreviews") == before
    assert seen.operator.metric(calls, resource="shufflejobs", verb="list") == lists


def test_no_page(plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path) -> None:
    grant(admin, namespace)
    with running_operator(plane, tmp_path, namespace, "--no-ui") as operator:
        assert operator.fetch("/ui/")[0] == 404
        assert operator.fetch("/ui/api/state", ADMIN_TOKEN)[0] == 404
        assert operator.fetch("/metrics")[0] == 200


@pytest.mark.usefixtures("_controllers")
def test_what_only_workers_know(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    with job_scene(plane, admin, namespace, tmp_path) as scene:
        scene.hold("count")
        scene.apply()
        scene.wait(lambda s: s.get("progress") == "1/2", what="the first stage to be done")

        def ask(path: str) -> Json:
            status, text = scene.operator.fetch(f"/ui/api/{path}", ADMIN_TOKEN)
            assert status == 200, text
            found: Json = json.loads(text)
            return found

        (worker,) = ask(f"clusters/{namespace}/main/workers")["workers"]
        assert worker["url"] == scene.workers[0].url
        assert worker["state"] == "serving"
        assert 0 < worker["disk_used"] < 1
        use = ask(f"jobs/{namespace}/words")
        (shuffle,) = use["shuffles"]
        assert (shuffle["name"], shuffle["partitions"]) == ("split", PARTITIONS)
        assert use["disk_bytes"] > 0
        sizes = ask(f"jobs/{namespace}/words/shuffles/split/0")
        assert (sizes["partitions"], sizes["maps"]) == (PARTITIONS, MAPS)
        assert sum(each["count"] for each in sizes["bins"]) == PARTITIONS
        assert sizes["smallest"] <= sizes["median"] <= sizes["largest"] <= sizes["bytes"]
        status, text = scene.operator.fetch(
            f"/ui/api/jobs/{namespace}/words/shuffles/nothing/0", ADMIN_TOKEN
        )
        assert status == 404, text
        scene.release("count")
        scene.wait_phase("Succeeded")
