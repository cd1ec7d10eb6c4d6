"""The CRDs on a real API server: what it takes, fills in, and refuses, in which words."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from administrator import OURS, Administrator, Refused
from specs import STORE, TARGET, cluster, job, stage

from crossdock_operator.api.cluster import ShuffleClusterSpec, Store
from crossdock_operator.api.crds import texts
from crossdock_operator.api.job import Executors, ScaleTarget, ShuffleJobSpec
from crossdock_operator.api.reading import read
from crossdock_worker.settings import Limits, Settings

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(
    path
    for path in (ROOT / "examples").glob("*/*.yaml")
    if "\nkind: ShuffleJob\n" in path.read_text()
)
MAX_BYTES = 64 * 1024
"""So that a CRD fits the annotation of `kubectl apply` by far."""

READS_WORDS = {"stage": "words"}
INVALID_CLUSTERS = [
    ({"store": {}}, "spec.store.url: Required value"),
    ({"store": {"url": "bucket"}}, 'spec.store.url: Invalid value: "bucket"'),
    (
        {"store": {"url": "file:///data", "endpoint": "http://minio"}},
        "is for s3:// stores only",
    ),
    (
        {"store": {"url": "s3://b/p", "endpoint": "minio:9000"}},
        'spec.store.endpoint: Invalid value: "minio:9000"',
    ),
    (
        {
            "store": {
                "url": "s3://b/p",
                "credentialsSecretRef": {"name": "s3"},
                "serviceAccountName": "s3",
            }
        },
        "choose one of credentialsSecretRef and serviceAccountName",
    ),
    (
        {"store": {"url": "s3://b/p", "credentialsSecretRef": {"name": "S3"}}},
        'credentialsSecretRef.name: Invalid value: "S3"',
    ),
    ({"store": {"url": "s3://b/p", "lifecycleCheck": "Maybe"}}, '"Check", "Ignore"'),
    ({"store": {"url": "s3://b/p", "bucket": "b"}}, 'unknown field "spec.store.bucket"'),
    ({"workers": {"replicas": -1}}, "should be greater than or equal to 0"),
    ({"workers": {"replicas": 1001}}, "should be less than or equal to 1000"),
    ({"workers": {"processes": 0}}, "should be greater than or equal to 1"),
    (
        {"workers": {"storage": {"emptyDir": {}, "volumeClaim": {"size": "10Gi"}}}},
        "choose one of emptyDir and volumeClaim",
    ),
    (
        {"workers": {"storage": {"volumeClaim": {"size": "10 gigs"}}}},
        "must be a size such as 64Mi, 1G or a number of bytes",
    ),
    (
        {"workers": {"storage": {"volumeClaim": {"size": "1Mi"}}}},
        "and 1Gi or more",
    ),
    ({"workers": {"storage": {"volumeClaim": {}}}}, "volumeClaim.size: Required value"),
    (
        {"workers": {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}}},
        "must not be more than maxReplicas",
    ),
    (
        {
            "workers": {
                "autoscaling": {
                    "maxReplicas": 2,
                    "targetDiskPercent": 0,
                    "targetInflightPercent": 0,
                }
            }
        },
        "needs a target",
    ),
    ({"persistence": {"policy": "Sometimes"}}, '"Never", "OnPressure", "Eager", "BeforeAck"'),
    ({"persistence": {"segmentSize": 1024}}, "and 2Mi or more"),
    ({"limits": {"maxFrame": -5}}, "must be a size"),
    (
        {"limits": {"maxFrame": "512Mi"}, "persistence": {"segmentSize": "1Gi"}},
        "must not be less than maxFrame",
    ),
    ({"persistence": {"segmentSize": "64Mi"}}, "must be at least 1Mi more than limits.maxFrame"),
    ({"security": {"tls": {"mode": "Secret"}}}, "mode Secret and secretRef go together"),
    (
        {"security": {"tls": {"secretRef": {"name": "tls"}}}},
        "mode Secret and secretRef go together",
    ),
    ({"allowedNamespaces": {"mode": "Selector"}}, "Selector and selector go together"),
    ({"audit": {"graceSeconds": 1}}, "should be greater than or equal to 60"),
    ({"deletionPolicy": "Keep"}, '"Delete", "Retain"'),
]
INVALID_JOBS = [
    ({"stages": []}, "spec.stages in body should have at least 1 items"),
    ({"stages": [stage("Words")]}, 'spec.stages[0].name: Invalid value: "Words"'),
    ({"stages": [stage(), stage()]}, "names of stages are unique in a job"),
    ({"stages": [stage(output={})]}, "must have exactly one of shuffle and files"),
    (
        {"stages": [stage(output={"shuffle": {"partitions": 1}, "files": "out"})]},
        "must have exactly one of shuffle and files",
    ),
    (
        {"stages": [stage(output={"shuffle": {"partitions": 0}})]},
        "should be greater than or equal to 1",
    ),
    (
        {"stages": [stage(output={"shuffle": {"partitions": 1, "compression": "gzip"}})]},
        '"zstd", "lz4", "none"',
    ),
    ({"stages": [stage(inputs=[{}])]}, "must have exactly one of files and stage"),
    (
        {"stages": [stage(), stage("b", inputs=[{"files": "a", "stage": "words"}])]},
        "must have exactly one of files and stage",
    ),
    ({"stages": [stage(inputs=[READS_WORDS])]}, "a stage reads stages before it, not itself"),
    (
        {"stages": [stage(inputs=[{"files": "a", "read": "All"}])]},
        "read and split are for shuffles only",
    ),
    (
        {"stages": [stage(), stage("b", inputs=[{**READS_WORDS, "read": "All", "split": True}])]},
        "split does not go with read: All",
    ),
    (
        {
            "stages": [
                stage(),
                stage("c"),
                stage(
                    "b",
                    inputs=[{**READS_WORDS, "split": True}, {"stage": "c", "split": True}],
                ),
            ]
        },
        "one input of a stage can be split",
    ),
    ({"stages": [stage(parallelism="many")]}, "must be auto or a number of tasks"),
    ({"stages": [stage(parallelism=0)]}, "must be auto or a number of tasks"),
    ({"stages": [stage(parallelism="auto")]}, "must be a number where no input is shared out"),
    ({"stages": [stage(retries=101)]}, "should be less than or equal to 100"),
    ({"stages": [stage(plan={"targetTaskSize": "64mb"})]}, "plan.targetTaskSize: Invalid value"),
    ({"stages": [stage(podTemplate={"spec": {}})]}, "podTemplate.spec.containers: Required"),
    ({"stages": [stage(replicas=2)]}, 'unknown field "spec.stages[0].replicas"'),
    (
        {"stages": [stage()], "executors": {"max": 2, "scaleTargetRef": TARGET}},
        "stages of its own or executors of an engine, not both",
    ),
    ({"dataRoot": "s3://data"}, "is for jobs with stages"),
    (
        {"executors": {"min": 3, "max": 2, "scaleTargetRef": TARGET}},
        "must not be more than max",
    ),
    (
        {"executors": {"idle": 3, "max": 2, "scaleTargetRef": TARGET}},
        "must not be more than max",
    ),
    ({"executors": {"max": 2}}, "spec.executors.scaleTargetRef: Required value"),
    ({"quota": "0"}, "must be a size"),
    ({"activeDeadlineSeconds": 0}, "should be greater than 0"),
    ({"clusterRef": {"name": "a b"}}, 'spec.clusterRef.name: Invalid value: "a b"'),
    ({"lifecycle": {"releaseShuffles": "Never"}}, '"WhenConsumed", "AtJobEnd"'),
    ({"lifecycle": {"ttlSecondsAfterSuccess": -1}}, "should be greater than or equal to 0"),
]
FROZEN_CLUSTER = [
    ({"store": {"url": "s3://other/place"}}, "the store cannot be changed: make a new"),
    ({"workers": {"storage": {"emptyDir": {}}}}, "storage cannot be changed: make a new"),
    ({"store": {"endpoint": "https://other.example.com"}}, "cannot be changed: make a new"),
    ({"workers": {"processes": 1}}, "cannot be lowered, nor be changed where workers have volumes"),
    ({"workers": {"processes": 3}}, "cannot be lowered, nor be changed where workers have volumes"),
]
FROZEN_JOB = [
    ({"stages": [stage("other")]}, "spec.stages: Invalid value"),
    ({"stages": None}, "spec.stages: Invalid value"),
    ({"dataRoot": "s3://data"}, "spec.dataRoot: Invalid value"),
    ({"persistence": "Eager"}, "spec.persistence: Invalid value"),
    ({"clusterRef": {"name": "other"}}, "spec.clusterRef: Invalid value"),
    (
        {"owner": {"apiVersion": "v1", "kind": "Pod", "name": "driver"}},
        "spec.owner: Invalid value",
    ),
]


@pytest.mark.parametrize("name", texts())
def test_files_are_those_of_the_types(name: str) -> None:
    """Else: `make crds`."""
    assert (ROOT / "crds" / name).read_text() == texts()[name]
    assert len(texts()[name].encode()) <= MAX_BYTES


@pytest.mark.parametrize("name", texts())
def test_every_field_is_described(name: str) -> None:
    def missing(schema: dict[str, Any], path: str) -> list[str]:
        found = [path] if path.count(".") > 0 and not schema.get("description") else []
        for field, below in schema.get("properties", {}).items():
            found += missing(below, f"{path}.{field}")
        return found + [
            name
            for field, below in schema.get("items", {}).get("properties", {}).items()
            for name in missing(below, f"{path}[].{field}")
        ]

    crd = yaml.safe_load(texts()[name])
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert [p for p in missing(schema, "") if not p.startswith(".metadata")] == []


@pytest.mark.parametrize(("spec", "message"), INVALID_CLUSTERS)
def test_invalid_clusters(admin: Administrator, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as refused:
        admin.create("default", "shuffleclusters", cluster(**spec))
    assert refused.value.status in {400, 422}
    assert message in refused.value.message


@pytest.mark.parametrize(("spec", "message"), INVALID_JOBS)
def test_invalid_jobs(admin: Administrator, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as refused:
        admin.create("default", "shufflejobs", job(**spec))
    assert refused.value.status in {400, 422}
    assert message in refused.value.message


@pytest.mark.parametrize(("patch", "message"), FROZEN_CLUSTER)
def test_what_of_a_cluster_is_fixed(
    admin: Administrator, namespace: str, patch: dict[str, Any], message: str
) -> None:
    store = {"url": "s3://bucket/place", "endpoint": "https://s3.example.com"}
    workers = {"processes": 2, "storage": {"volumeClaim": {"size": "1Gi"}}}
    admin.create(namespace, "shuffleclusters", cluster(store=store, workers=workers))
    with pytest.raises(Refused, match=message):
        admin.merge(f"{OURS}/namespaces/{namespace}/shuffleclusters/main", {"spec": patch})


@pytest.mark.parametrize(("patch", "message"), FROZEN_JOB)
def test_what_of_a_job_is_fixed(
    admin: Administrator, namespace: str, patch: dict[str, Any], message: str
) -> None:
    admin.create(namespace, "shufflejobs", job(stages=[stage()]))
    with pytest.raises(Refused) as refused:
        admin.merge(f"{OURS}/namespaces/{namespace}/shufflejobs/wordcount", {"spec": patch})
    assert message in refused.value.message
    assert "cannot be changed: make a new ShuffleJob" in refused.value.message


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_are_taken_as_they_are(admin: Administrator, namespace: str, path: Path) -> None:
    objects = yaml.safe_load_all(path.read_text())
    [written] = [each for each in objects if each["kind"] == "ShuffleJob"]
    made = admin.create(namespace, "shufflejobs", written)
    assert made["spec"]["clusterRef"] == {"name": "default"}
    stages = [body["spec"].get("stages", ()) for body in (written, made)]
    for mine, kept in zip(*stages, strict=True):
        assert kept["podTemplate"] == mine["podTemplate"], "nothing of it is pruned"


def test_what_of_a_cluster_may_be_changed(admin: Administrator, namespace: str) -> None:
    admin.create(namespace, "shuffleclusters", cluster(workers={"processes": 2}))
    path = f"{OURS}/namespaces/{namespace}/shuffleclusters/main"
    made = admin.merge(path, {"spec": {"workers": {"processes": 3, "replicas": 4}}})
    assert made["spec"]["workers"]["processes"] == 3
    with pytest.raises(Refused, match="cannot be lowered"):
        admin.merge(path, {"spec": {"workers": {"processes": 2}}})


def test_the_target_of_executors_is_fixed(admin: Administrator, namespace: str) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "executors"}
    admin.create(namespace, "shufflejobs", job(executors={"scaleTargetRef": target, "max": 4}))
    path = f"{OURS}/namespaces/{namespace}/shufflejobs/wordcount"
    assert admin.merge(path, {"spec": {"executors": {"max": 8}}})["spec"]["executors"]["max"] == 8
    for patch in (None, {"scaleTargetRef": {**target, "name": "others"}}):
        with pytest.raises(Refused, match="their target cannot be changed: make a new ShuffleJob"):
            admin.merge(path, {"spec": {"executors": patch}})


def test_what_may_be_changed(admin: Administrator, namespace: str) -> None:
    admin.create(namespace, "shufflejobs", job(stages=[stage()]))
    path = f"{OURS}/namespaces/{namespace}/shufflejobs/wordcount"
    changes = {"suspend": True, "activeDeadlineSeconds": 0.5, "quota": "10Gi"}
    assert admin.merge(path, {"spec": changes})["spec"]["suspend"] is True


def test_a_pod_template_keeps_what_we_do_not_know(admin: Administrator, namespace: str) -> None:
    template = {
        "metadata": {"labels": {"team": "a"}},
        "spec": {
            "nodeSelector": {"disk": "ssd"},
            "containers": [{"name": "task", "resources": {"limits": {"cpu": 1}}}],
        },
    }
    made = admin.create(namespace, "shufflejobs", job(stages=[stage(podTemplate=template)]))
    assert made["spec"]["stages"][0]["podTemplate"] == template


def test_scale_and_status_are_subresources(admin: Administrator, namespace: str) -> None:
    admin.create(namespace, "shuffleclusters", cluster())
    path = f"{OURS}/namespaces/{namespace}/shuffleclusters/main"
    assert admin.ask("GET", f"{path}/scale")["spec"]["replicas"] == 2
    admin.merge(f"{path}/scale", {"spec": {"replicas": 7}})
    scaled = admin.ask("GET", path)
    assert scaled["spec"]["workers"]["replicas"] == 7
    status = {"phase": "Ready", "workers": {"ready": 3}}
    admin.merge(f"{path}/status", {"status": status, "spec": {"paused": True}})
    found = admin.ask("GET", path)
    assert found["status"] == status, "as it was written: nothing is filled in"
    assert found["spec"]["paused"] is False
    assert found["metadata"]["generation"] == scaled["metadata"]["generation"]


def test_columns(admin: Administrator, namespace: str) -> None:
    admin.create(namespace, "shufflejobs", job(stages=[stage()]))
    crd = admin.ask(
        "GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/shufflejobs.crossdock.dev"
    )
    columns = crd["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [c["name"] for c in columns][-1] == "Age"
    assert crd["status"]["acceptedNames"]["shortNames"] == ["shj"]
    assert crd["status"]["acceptedNames"]["categories"] == ["crossdock"]


def test_what_the_server_fills_in_is_what_the_types_say(
    admin: Administrator, namespace: str
) -> None:
    made = admin.create(namespace, "shuffleclusters", cluster())
    spec = read(ShuffleClusterSpec, made["spec"])
    assert spec == ShuffleClusterSpec(store=Store(url=STORE.as_uri()))
    attached = {"max": 8, "scaleTargetRef": TARGET}
    made = admin.create(namespace, "shufflejobs", job(executors=attached, quota="1Gi"))
    target = ScaleTarget(api_version="apps/v1", kind="Deployment", name="executors")
    assert read(ShuffleJobSpec, made["spec"]) == ShuffleJobSpec(
        executors=Executors(max=8, scale_target_ref=target), quota=2**30
    )


def test_defaults_are_those_of_the_worker(admin: Administrator, namespace: str) -> None:
    sizes = {"limits": {"maxFrame": 2**20, "maxInflight": "2e6"}}
    admin.create(namespace, "shuffleclusters", cluster("sizes", **sizes))
    spec = admin.create(namespace, "shuffleclusters", cluster())["spec"]
    limits, settings = Limits(), Settings.__dataclass_fields__
    mib = 2**20
    assert spec["limits"] == {
        "maxFrame": f"{limits.max_frame_bytes // mib}Mi",
        "maxInflight": f"{limits.max_inflight_bytes // mib}Mi",
        "maxRead": f"{limits.max_read_bytes // mib}Mi",
        "maxConnections": limits.max_connections,
        "maxPartitions": limits.max_partitions,
    }
    assert spec["persistence"] == {
        "policy": "OnPressure",
        "afterSeconds": settings["persist_after_seconds"].default,
        "diskPercent": round(limits.disk_persist * 100),
        "segmentSize": f"{limits.segment_bytes // mib}Mi",
        "uploads": limits.store_uploads,
        "compression": settings["store_compression"].default,
    }
    assert spec["store"]["settleSeconds"] == settings["store_settle_seconds"].default
