"""`kubectl crossdock`: what it has the operator do or say, and how it gets there."""

import http.client
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from administrator import Administrator
from control_plane import ADMIN_TOKEN, ControlPlane
from node import Node, restricted
from persons import Person, account, allow
from scenes import Scene, condition
from staged_jobs import job_scene

from crossdock_operator.rbac import manifests
from harness import WAIT_SECONDS, eventually

pytestmark = pytest.mark.usefixtures("_controllers")
OPERATOR = {"app.kubernetes.io/name": "crossdock", "app.kubernetes.io/component": "operator"}


@pytest.fixture
def node(admin: Administrator, namespace: str, tmp_path: Path) -> Iterator[Node]:
    with Node(admin, tmp_path / "node", f"node-{namespace}") as found:
        yield found


@pytest.fixture
def boss(plane: ControlPlane, tmp_path: Path) -> Person:
    """Somebody who may do everything."""
    return Person(plane, ADMIN_TOKEN, tmp_path)


@contextmanager
def opened_page(person: Person, namespace: str, *more: str) -> Iterator[str]:
    """Run `ui` without a browser; give the URL that it prints. Without a namespace it looks."""
    where = ("--operator-namespace", namespace) if namespace else ()
    command = person.start("ui", "--no-browser", *where, *more)
    try:
        assert command.stdout is not None
        url = command.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), url + command.stdout.read()
        yield url
    finally:
        command.kill()
        command.communicate()


class Browser:
    """What a browser does with the page: no redirect is followed, and cookies are kept."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._where = parts.netloc
        self._cookie = ""
        status, headers, _ = self.get(f"{parts.path}?{parts.query}")
        assert status == 303
        assert "HttpOnly" in headers["Set-Cookie"]
        assert "SameSite=Strict" in headers["Set-Cookie"]
        self._cookie = headers["Set-Cookie"].split(";")[0]

    def get(
        self, path: str, *, host: str = "", cookie: str | None = None
    ) -> tuple[int, http.client.HTTPMessage, str]:
        connection = http.client.HTTPConnection(self._where, timeout=WAIT_SECONDS)
        try:
            sent = self._cookie if cookie is None else cookie
            headers = {"Host": host or self._where, **({"Cookie": sent} if sent else {})}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def first_news(self) -> dict[str, list[dict[str, str]]]:
        """Return the first event of the page's stream."""
        request = urllib.request.Request(
            f"http://{self._where}/ui/api/events", headers={"Cookie": self._cookie}
        )
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            line = next(line for line in answer if line.startswith(b"data: "))
        found: dict[str, list[dict[str, str]]] = json.loads(line.removeprefix(b"data: "))
        return found


def test_the_page_through_the_api_server_with_ones_own_token(
    scene: Scene, node: Node, boss: Person, plane: ControlPlane, tmp_path: Path
) -> None:
    scene.create()
    scene.wait_status(lambda s: s.get("phase") == "Pending")
    scene.admin.await_service_account(scene.namespace)
    missing = boss.run("ui", "--no-browser", "--operator-namespace", scene.namespace)
    assert missing.returncode == 2
    assert "say where the operator runs" in missing.stderr
    port = urlsplit(scene.operator.url).port
    assert port is not None
    node.run(scene.namespace, "operator", OPERATOR, port=port)
    with opened_page(boss, scene.namespace) as url:
        browser = Browser(url)
        status, headers, text = browser.get("/ui/")
        assert status == 200
        assert "<title>Crossdock</title>" in text
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert ADMIN_TOKEN not in text
        assert [each["name"] for each in browser.first_news()["clusters"]] == ["main"]
        assert browser.get("/ui/", cookie="crossdock=guessed")[0] == 403
        assert browser.get("/ui/api/state", cookie="")[0] == 403
        assert browser.get("/ui/", host="rebound.example.com")[0] == 403
        assert browser.get("/metrics")[0] == 404, "nothing but the page"
    poor = Person(plane, account(scene.admin, scene.namespace, "poor"), tmp_path)
    allow(scene.admin, scene.namespace, "poor", "pods", verbs=["list"])
    refused = eventually(lambda: _if_says(poor, scene.namespace, "portforward"))
    assert f"get and create pods/portforward in the namespace {scene.namespace}" in refused
    account(scene.admin, scene.namespace, "another")
    with opened_page(boss, scene.namespace, "--account", f"{scene.namespace}/another") as url:
        status, _, text = Browser(url).get("/ui/api/state")
        assert status == 403, text
        assert f"{scene.namespace}:another may not list" in text


def test_the_operator_is_found_by_bindings_that_only_administrators_make(
    scene: Scene, node: Node, boss: Person, plane: ControlPlane, tmp_path: Path
) -> None:
    port = urlsplit(scene.operator.url).port
    assert port is not None
    scene.admin.await_service_account(scene.namespace)
    node.run(scene.namespace, "operator", OPERATOR, port=port)
    nowhere = boss.run("ui", "--no-browser")
    assert nowhere.returncode == 2
    assert "is ready in the namespace crossdock" in nowhere.stderr, "the pod's labels do not count"
    with _binding(scene.admin, scene.namespace):
        with opened_page(boss, ""):
            pass
        poor = Person(plane, account(scene.admin, scene.namespace, "poor"), tmp_path)
        refused = poor.run("ui", "--no-browser").stderr
        assert "right to list pods in the namespace crossdock" in refused
        assert "--operator-namespace" in refused
        with _binding(scene.admin, "another"):
            several = boss.run("ui", "--no-browser").stderr
            assert f"namespaces another, {scene.namespace}" in several
            assert "--operator-namespace" in several


@contextmanager
def _binding(admin: Administrator, namespace: str) -> Iterator[None]:
    """Bind an operator's account there as `roles/` does, while the context lasts."""
    (_, binding) = manifests()["reviews.yaml"]
    root = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    metadata = {**binding["metadata"], "name": f"reviews-{namespace}"}
    subjects = [{**binding["subjects"][0], "namespace": namespace}]
    admin.ask("POST", root, {**binding, "metadata": metadata, "subjects": subjects})
    try:
        yield
    finally:
        admin.ask("DELETE", f"{root}/reviews-{namespace}")


def test_a_kubeconfig_without_a_token_is_told_how_to_have_one(boss: Person) -> None:
    """Those of kind and minikube have a client certificate."""
    text = boss.kubeconfig.read_text()
    boss.kubeconfig.write_text(text.replace(f'{{token: "{ADMIN_TOKEN}"}}', "{}"))
    assert boss.kubeconfig.read_text() != text
    told = boss.run("ui", "--no-browser")
    assert told.returncode == 2
    assert "create rolebinding viewer --clusterrole=view" in told.stderr
    assert "--account NAMESPACE/viewer" in told.stderr


def _if_says(person: Person, namespace: str, word: str) -> str:
    found = person.run("ui", "--no-browser", "--operator-namespace", namespace).stderr
    return found if word in found else ""


def test_top_has_jobs_and_workers_fill(  # noqa: PLR0917 -- fixtures
    plane: ControlPlane,
    admin: Administrator,
    namespace: str,
    boss: Person,
    node: Node,
    tmp_path: Path,
) -> None:
    with job_scene(plane, admin, namespace, tmp_path) as scene:
        scene.hold("count")
        scene.apply()
        scene.wait(lambda s: s.get("workerBytes"), what="what it has on disks")
        port = urlsplit(scene.operator.url).port
        assert port is not None
        node.run(namespace, "operator", OPERATOR, port=port)
        here = ("-n", namespace, "--operator-namespace", namespace)
        found = boss.run("top", *here)
        assert scene.workers[0].url in found.stdout, found.stderr
        assert "serving" in found.stdout
        assert found.stderr == "", "connections that are still open at its end are no fault"
        said = json.loads(boss.run("top", *here, "-o", "json").stdout)
        assert said["jobs"][0]["worker_bytes"] > 0
        assert 0 < said["workers"][0]["disk_used"] < 1
        alone = boss.run("top", "-n", namespace, "--operator-namespace", "nowhere")
        assert alone.returncode == 0
        assert "words" in alone.stdout
        assert "workers are not shown" in alone.stderr


def test_an_audit_that_is_asked_for_is_made_at_once(scene: Scene, boss: Person) -> None:
    scene.create(audit={"intervalSeconds": 604_800})
    path = scene.path("shuffleclusters", "main")
    first = scene.wait_status(lambda s: s.get("storage", {}).get("lastAuditTime"))
    assert condition(first, "StorageClean")["reason"] == "Audited"
    old = {"storage": {**first["storage"], "lastAuditTime": "2026-01-01T00:00:00Z"}}
    scene.admin.merge(f"{path}/status", {"status": old})
    before = boss.run("audit", "-n", scene.namespace)
    assert before.returncode == 0, before.stderr
    done = boss.run("audit", "--now", "-n", scene.namespace, "-o", "json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["clusters"]
    assert row["audited"] >= first["storage"]["lastAuditTime"]
    scene.change(paused=True)
    paused = boss.run("audit", "main", "--now", "-n", scene.namespace)
    assert paused.returncode == 2
    assert "is paused" in paused.stderr


def test_drain_evicts_a_worker_when_its_budget_allows_it(
    scene: Scene, boss: Person, admin: Administrator
) -> None:
    scene.create()
    scene.wait("pods", "main-worker-1")
    pods = f"/api/v1/namespaces/{scene.namespace}/pods"
    scene.admin.ask("POST", pods, {"metadata": {"name": "other"}, "spec": restricted()})
    wrong = boss.run("drain", "other", "-n", scene.namespace)
    assert wrong.returncode == 2
    assert "is no worker of Crossdock" in wrong.stderr
    scene.make_ready(2)
    scene.wait_status(lambda s: s.get("phase") == "Ready")
    uid = scene.wait("pods", "main-worker-1")["metadata"]["uid"]
    path = scene.path("poddisruptionbudgets", "main-worker")
    eventually(lambda: (admin.get(path) or {}).get("status", {}).get("disruptionsAllowed"))
    drained = boss.run("drain", "main-worker-1", "-n", scene.namespace)
    assert drained.returncode == 0, drained.stderr
    assert "main-worker-1 is gone" in drained.stdout
    scene.wait("pods", "main-worker-1", lambda o: o["metadata"]["uid"] != uid)
    refused = boss.run("drain", "main-worker-0", "--no-wait", "-n", scene.namespace)
    assert refused.returncode == 1, "one of two is not ready"
    assert "lets one worker go at a time" in refused.stderr
    nobody = boss.run("drain", "nobody", "-n", scene.namespace)
    assert "there is no Pod 'nobody'" in nobody.stderr
