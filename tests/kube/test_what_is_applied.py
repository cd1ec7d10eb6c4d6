"""What the examples and the quickstart have applied: the API server and the operator take it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml
from administrator import Administrator, Object
from rendering import rendered
from specs import cluster

from crossdock_operator.jobs.acceptance import judge
from crossdock_operator.plan.conditions import YES
from crossdock_operator.records import Cluster, cluster_of, job_of

ROOT: Final = Path(__file__).parents[2]
_YAML: Final = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILES: Final = sorted(
    [
        *(ROOT / "examples" / "on-kubernetes").glob("*.yaml"),
        ROOT / "examples" / "attached" / "engine.yaml",
        ROOT / "examples" / "s3" / "versitygw.yaml",
    ]
)
TEXTS: Final = {
    **{str(path.relative_to(ROOT / "examples")): path.read_text() for path in FILES},
    **{
        f"quickstart-{n}": text
        for n, text in enumerate(_YAML.findall((ROOT / "docs" / "quickstart.md").read_text()))
    },
}


@pytest.fixture
def place(admin: Administrator, namespace: str) -> str:
    """A namespace in which only restricted pods may run, by the account that they have."""
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    admin.merge(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": enforce}})
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    if admin.get(f"{path}/default") is None:
        admin.ask("POST", path, {"metadata": {"name": "default"}})
    return namespace


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_applied_is_taken(admin: Administrator, place: str, name: str) -> None:
    for each in yaml.safe_load_all(TEXTS[name]):
        stored = _dry_run(admin, place, each)
        if each["kind"] == "ShuffleJob":
            answer = judge(job_of(stored), _cluster(admin, place), {})
            assert answer.status == YES, answer.message
        for spec in _pods(each):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
            _dry_run(admin, place, pod)


def test_the_values_for_the_server_of_the_examples_make_a_cluster(
    admin: Administrator, place: str
) -> None:
    values = yaml.safe_load((ROOT / "examples" / "s3" / "values.yaml").read_text())
    assert rendered(values), "the chart takes them"
    _dry_run(admin, place, cluster("default", **values["defaultCluster"]["spec"]))
    keys, service, _ = yaml.safe_load_all(TEXTS["s3/versitygw.yaml"])
    store = values["defaultCluster"]["spec"]["store"]
    assert store["credentialsSecretRef"]["name"] == keys["metadata"]["name"]
    (port,) = service["spec"]["ports"]
    assert store["endpoint"] == f"http://{service['metadata']['name']}.crossdock.svc:{port['port']}"


def test_every_stage_reads_and_writes_where_its_pods_have_a_volume() -> None:
    """The operator sees no volumes: `Accepted` does not say that they are there."""
    made = [yaml.safe_load(text) for name, text in TEXTS.items() if "on-kubernetes/" in name]
    jobs = [each for each in made if each["kind"] == "ShuffleJob"]
    assert len(jobs) == 7
    for job in jobs:
        for spec in _pods(job):
            (container,) = spec["containers"]
            mounted = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
            volumes = {v["name"]: v for v in spec["volumes"]}
            assert job["spec"]["dataRoot"].startswith("/data/")
            assert "persistentVolumeClaim" in volumes[mounted["/data"]]
            assert "emptyDir" in volumes[mounted["/tmp"]]  # noqa: S108


def _dry_run(admin: Administrator, namespace: str, body: Object) -> Object:
    """Have the API server judge an object without storing it; return what it would have stored."""
    version = body["apiVersion"]
    root = "/api/v1" if version == "v1" else f"/apis/{version}"
    path = f"{root}/namespaces/{namespace}/{body['kind'].lower()}s"
    stored = admin.ask("POST", f"{path}?dryRun=All&fieldValidation=Strict", body)
    stored["metadata"].setdefault("resourceVersion", "1")  # which only what is stored has
    return stored


def _cluster(admin: Administrator, namespace: str) -> Cluster:
    return cluster_of(_dry_run(admin, namespace, cluster("default")))


def _pods(body: Object) -> Iterator[Object]:
    """Yield the specs of the pods that an object becomes."""
    if body["kind"] == "Pod":
        yield body["spec"]
    elif "template" in body.get("spec", {}):
        spec = body["spec"]["template"]["spec"]
        claims = [c["metadata"]["name"] for c in body["spec"].get("volumeClaimTemplates", ())]
        yield _never_again(spec | {"volumes": [*spec.get("volumes", ()), *map(_claimed, claims)]})
    else:
        for stage in body.get("spec", {}).get("stages", ()):
            yield _never_again(stage["podTemplate"]["spec"])


def _claimed(name: str) -> Object:
    return {"name": name, "persistentVolumeClaim": {"claimName": name}}


def _never_again(spec: Object) -> Object:
    return {"restartPolicy": "Never", **spec}
