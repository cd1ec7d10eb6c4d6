"""What a cluster needs is decided without I/O: it converges, repairs drift, and then is silent."""

from dataclasses import replace
from typing import Any

import pytest
import typer.main
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdock_operator.api.cluster import (
    AllowedNamespaces,
    Autoscaling,
    EmptyDir,
    NamespacesFrom,
    Security,
    ShuffleClusterSpec,
    Storage,
    Store,
    Tls,
    TlsMode,
    VolumeClaim,
    Workers,
)
from crossdock_operator.api.common import SecretReference
from crossdock_operator.kinds import SECRET, STATEFUL_SET, Object
from crossdock_operator.plan import names
from crossdock_operator.plan.cluster import (
    Applied,
    Apply,
    Given,
    Observed,
    RenewCertificate,
    RenewKeys,
    next_renewal,
    objects,
    plan,
    replicas,
    taken,
    unknown,
)
from crossdock_operator.plan.conditions import NO, YES, Answer, conditions
from crossdock_operator.plan.status import cluster_status
from crossdock_operator.plan.workers import command, merge, pod_template
from crossdock_operator.records import Child, ChildKey, Cluster, Key, Owner, mark_of
from crossdock_operator.trial import trial_job
from crossdock_worker import cli as worker_cli

GIVEN = Given(worker_image="example.com/crossdock:1", namespace="crossdock-system")
GIB = 2**30
stores = st.builds(
    Store,
    url=st.just("s3://bucket/shuffles"),
    endpoint=st.sampled_from(["", "http://minio:9000"]),
    credentials_secret_ref=st.none() | st.just(SecretReference(name="s3")),
    service_account_name=st.none() | st.just("store-access"),
)
storages = st.one_of(
    st.just(Storage()),
    st.just(Storage(empty_dir=EmptyDir(size_limit=3 * GIB))),
    st.builds(lambda c: Storage(volume_claim=VolumeClaim(size=GIB, storage_class_name=c)),
              st.none() | st.just("fast")),
)  # fmt: skip
workers = st.builds(
    Workers,
    replicas=st.integers(0, 50),
    processes=st.integers(1, 4),
    storage=storages,
    autoscaling=st.none()
    | st.builds(Autoscaling, min_replicas=st.integers(1, 5), max_replicas=st.integers(5, 9)),
)
specs = st.builds(
    ShuffleClusterSpec,
    store=stores,
    workers=workers,
    security=st.sampled_from(
        [
            Security(),
            Security(tls=Tls(mode=TlsMode.SECRET, secret_ref=SecretReference(name="t"))),
            Security(tls=Tls(mode=TlsMode.DISABLED)),
        ]
    ),
    allowed_namespaces=st.sampled_from(
        [
            AllowedNamespaces(),
            AllowedNamespaces(mode=NamespacesFrom.ALL),
            AllowedNamespaces(mode=NamespacesFrom.SELECTOR, selector={"team": "a"}),
        ]
    ),
)


def cluster(spec: ShuffleClusterSpec, **more: Any) -> Cluster:
    plain = {"uid": "u-1", "generation": 1, "deleting": False, "status": {}}
    return Cluster(key=Key("data", "main"), spec=spec, **{**plain, **more})


class World:
    """Remembers what was applied, as an API server and an operator would."""

    def __init__(self) -> None:
        self.children: dict[ChildKey, Child] = {}
        self.applied: dict[ChildKey, Applied] = {}

    def round(self, cluster: Cluster) -> list[ChildKey]:
        """Do what the planner says; return what was touched."""
        touched = []
        for action in plan(
            Observed(cluster=cluster, children=self.children, applied=self.applied), GIVEN
        ):
            if isinstance(action, Apply):
                key, mark = action.key, mark_of(action.body)
                self.applied[key] = Applied(digest=action.digest, mark=mark)
            else:
                key, mark = ChildKey(SECRET.name, action.name), "key"
            self.children[key] = Child(mark=mark)
            touched.append(key)
        return touched


@given(spec=specs)
def test_one_round_is_enough(spec: ShuffleClusterSpec) -> None:
    world = World()
    assert ChildKey("StatefulSet", "main-worker") in world.round(cluster(spec))
    assert world.round(cluster(spec)) == []


@given(spec=specs, data=st.data())
def test_drift_is_repaired_and_nothing_else_touched(
    spec: ShuffleClusterSpec, data: st.DataObject
) -> None:
    world = World()
    world.round(cluster(spec))
    key = data.draw(st.sampled_from(sorted(world.children)))
    if data.draw(st.booleans()):
        del world.children[key]
    elif key.kind == SECRET.name:
        return  # keys are the operator's only at first: they are rotated by hand or by us
    else:
        world.children[key] = Child(mark="somebody changed it")
    assert world.round(cluster(spec)) == [key]
    assert world.round(cluster(spec)) == []


@given(before=specs, after=specs)
def test_a_new_spec_touches_what_it_changes(
    before: ShuffleClusterSpec, after: ShuffleClusterSpec
) -> None:
    world = World()
    before_keys = set(world.round(cluster(before)))
    old = {(k.name, b["metadata"]["name"]): b for k, b in objects(cluster(before), GIVEN)}
    new = {(k.name, b["metadata"]["name"]): b for k, b in objects(cluster(after), GIVEN)}
    certificate = {ChildKey(SECRET.name, "main-tls")} - before_keys
    if after.security.tls.mode is not TlsMode.OWN:
        certificate = set()
    changed = {k for k in new if new[k] != old.get(k)}
    assert set(world.round(cluster(after))) == changed | certificate


@given(spec=specs)
def test_a_new_operator_applies_everything_once_but_the_key(spec: ShuffleClusterSpec) -> None:
    world = World()
    world.round(cluster(spec))
    world.applied.clear()
    touched = world.round(cluster(spec))
    assert {k for k in world.children if k.kind != SECRET.name} == set(touched)


@given(spec=specs)
def test_all_belongs_to_the_cluster(spec: ShuffleClusterSpec) -> None:
    for _, body in objects(cluster(spec), GIVEN):
        metadata = body["metadata"]
        assert metadata["namespace"] == "data"
        assert metadata["labels"][names.CLUSTER_LABEL] == "main"
        assert metadata["ownerReferences"][0]["uid"] == "u-1"


@given(spec=specs)
def test_only_pods_of_this_very_cluster_are_its_workers(spec: ShuffleClusterSpec) -> None:
    """But what guards them guards those of an earlier one; and a StatefulSet's stays as it was."""
    now, before = cluster(spec), cluster(spec, uid="u-0")
    selectors: dict[str, list[Object]] = {}
    for kind, body in objects(now, GIVEN):
        found = body.get("spec", {})
        found = found.get("selector") or found.get("podSelector") or {}
        selectors.setdefault(kind.name, []).append(found.get("matchLabels", found))

    def selected(kind: str, by: Cluster) -> list[bool]:
        labels = pod_template(by, "image")["metadata"]["labels"]
        return [each.items() <= labels.items() for each in selectors[kind]]

    assert selected("Service", now) == [True, True]
    assert selected("Service", before) == [False, False]
    for kind, of_before in (
        ("PodDisruptionBudget", False), ("NetworkPolicy", True), ("StatefulSet", True),
    ):  # fmt: skip
        assert (selected(kind, now), selected(kind, before)) == ([True], [of_before])
    assert names.CLUSTER_UID not in selectors["StatefulSet"][0]


@given(spec=specs)
def test_the_number_of_workers_is_within_its_bounds(spec: ShuffleClusterSpec) -> None:
    count, bounds = replicas(cluster(spec)), spec.workers.autoscaling
    if bounds is None:
        assert count == spec.workers.replicas
    else:
        assert bounds.min_replicas <= count <= bounds.max_replicas


@pytest.mark.parametrize("more", [{"deleting": True}, {}])
def test_nothing_is_done_for_what_goes_or_is_paused(more: dict[str, Any]) -> None:
    spec = ShuffleClusterSpec(store=Store(url="s3://b/p"), paused=not more)
    assert World().round(cluster(spec, **more)) == []


@settings(max_examples=20)
@given(spec=specs)
def test_workers_take_their_command(spec: ShuffleClusterSpec) -> None:
    app = typer.Typer(add_completion=False)
    app.command()(worker_cli.worker)
    name, sub, *options = command(cluster(spec))
    assert (name, sub) == ("crossdock", "worker")
    context = typer.main.get_command(app).make_context("worker", list(options))
    assert context.params["cluster"] == "u-1"
    assert str(context.params["key_file"]).endswith(f"/{names.KEY_FILE}")
    assert context.params["processes"] == spec.workers.processes
    assert context.params["advertise"].startswith(
        "http:" if spec.security.tls.mode is TlsMode.DISABLED else "https:"
    )


def test_a_pod_template_is_merged_over_ours() -> None:
    template = {
        "metadata": {"labels": {"team": "a", "app.kubernetes.io/instance": "other"}},
        "spec": {
            "nodeSelector": {"disk": "ssd"},
            "containers": [
                {"name": "worker", "env": [{"name": "X", "value": "1"}]},
                {"name": "side"},
            ],
        },
    }
    spec = ShuffleClusterSpec(store=Store(url="s3://b/p"), workers=Workers(pod_template=template))
    found = pod_template(cluster(spec), "image")
    worker, side = found["spec"]["containers"]
    assert [e["name"] for e in worker["env"]] == ["POD_NAME", "X"]
    assert worker["image"] == "image"
    assert side == {"name": "side"}
    assert found["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert found["metadata"]["labels"]["team"] == "a"
    assert found["metadata"]["labels"]["app.kubernetes.io/instance"] == "main", "it is selected by"


def test_workers_request_what_they_use_unless_something_is_said() -> None:
    def resources(**given: Any) -> Object:
        store = Store(url="s3://bucket/shuffles")
        spec = ShuffleClusterSpec(store=store, workers=Workers(**given))
        template = pod_template(cluster(spec), "image")
        found: Object = template["spec"]["containers"][0]["resources"]
        return found

    assert resources() == {"requests": {"cpu": "250m", "memory": "256Mi"}}
    assert resources(processes=3) == {"requests": {"cpu": "750m", "memory": "768Mi"}}
    own = {"limits": {"memory": "1Gi"}}
    assert resources(resources=own) == own
    assert resources(resources={"requests": {}}) == {"requests": {}}


def test_images_are_pulled_with_the_operators_secrets_and_the_clusters_own() -> None:
    own = {"spec": {"imagePullSecrets": [{"name": "own"}, {"name": "both"}]}}
    spec = ShuffleClusterSpec(store=Store(url="s3://b/p"), workers=Workers(pod_template=own))
    given = replace(GIVEN, pull_secrets=("both", "operators"))
    (workers,) = [body for kind, body in objects(cluster(spec), given) if kind == STATEFUL_SET]
    pulled = workers["spec"]["template"]["spec"]["imagePullSecrets"]
    assert pulled == [{"name": "both"}, {"name": "operators"}, {"name": "own"}]
    assert (
        "imagePullSecrets"
        not in pod_template(cluster(replace(spec, workers=Workers())), "i")["spec"]
    )


def test_the_trial_pulls_with_the_secrets_of_the_release() -> None:
    job = trial_job("release", "default", "image", ["registry"])
    for stage in job["spec"]["stages"]:
        assert stage["podTemplate"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]


json_values = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "a", "b"]), below, max_size=3)
    ),
    max_leaves=8,
)


@given(ours=json_values, theirs=json_values)
def test_merging_again_changes_nothing(ours: Any, theirs: Any) -> None:
    try:
        once = merge(ours, theirs)
    except TypeError:  # names that are no texts
        return
    assert merge(ours, {}) == (ours if isinstance(ours, dict) else {})
    assert merge(once, theirs) == once


def status(workers: Child | None, *, refused: str = "", before: Object | None = None) -> Object:
    spec = ShuffleClusterSpec(store=Store(url="s3://b/p"), workers=Workers(replicas=2))
    children = {ChildKey(STATEFUL_SET.name, "main-worker"): workers} if workers else {}
    observed = Observed(cluster=cluster(spec, status=before or {}), children=children)
    return cluster_status(observed, refused=refused, now="2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("workers", "refused", "phase", "available", "degraded"),
    [
        (None, "", "Progressing", "False", "True"),
        (Child(mark="", replicas=2, updated=1, ready=2), "", "Progressing", "True", "False"),
        (Child(mark="", replicas=2, updated=2, ready=0), "", "Pending", "False", "True"),
        (Child(mark="", replicas=2, updated=2, ready=1), "", "Degraded", "True", "True"),
        (Child(mark="", replicas=2, updated=2, ready=2), "", "Ready", "True", "False"),
        (Child(mark="", replicas=2, updated=2, ready=2, settled=False), "", "Progressing", "True",
         "False"),
        (Child(mark="", replicas=2, updated=2, ready=2), "no", "Degraded", "True", "True"),
    ],
)  # fmt: skip
def test_status(
    workers: Child | None, refused: str, phase: str, available: str, degraded: str
) -> None:
    found = status(workers, refused=refused)
    answers = {c["type"]: c["status"] for c in found["conditions"]}
    assert found["phase"] == phase
    assert (answers["Available"], answers["Degraded"]) == (available, degraded)


def test_a_status_that_stays_is_the_same() -> None:
    ready = Child(mark="", replicas=2, updated=2, ready=2)
    first = status(ready)
    spec = ShuffleClusterSpec(store=Store(url="s3://b/p"), workers=Workers(replicas=2))
    observed = Observed(
        cluster=cluster(spec, status=first),
        children={ChildKey(STATEFUL_SET.name, "main-worker"): ready},
    )
    assert cluster_status(observed, refused="", now="2027-01-01T00:00:00Z") == first


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    first = conditions([Answer("A", YES, "X")], before=[], generation=1, now="t1")
    second = conditions([Answer("A", YES, "Y")], before=first, generation=2, now="t2")
    assert (second[0]["lastTransitionTime"], second[0]["reason"]) == ("t1", "Y")
    third = conditions([Answer("A", NO, "Y")], before=second, generation=2, now="t3")
    assert third[0]["lastTransitionTime"] == "t3"


def _another(name: str) -> Child:
    return Child(mark="another's", owner=Owner(name, "u-0"))


@given(spec=specs, data=st.data())
def test_nothing_is_done_over_what_is_of_another_cluster(
    spec: ShuffleClusterSpec, data: st.DataObject
) -> None:
    world = World()
    world.round(cluster(spec))
    key = data.draw(st.sampled_from(sorted(world.children)))
    workers = ChildKey(STATEFUL_SET.name, "main-worker")
    for begun in ({}, {workers: world.children[workers]}):
        found = Observed(cluster=cluster(spec), children=begun, others={key: _another("main")})
        planned = plan(found, GIVEN)
        keys = {a.key if isinstance(a, Apply) else ChildKey(SECRET.name, a.name) for a in planned}
        assert key not in keys
        assert (workers in keys) == (bool(begun) and key != workers), "none are begun beside it"
        if key.kind == SECRET.name:
            assert not any(isinstance(a, RenewKeys | RenewCertificate) for a in planned)


@pytest.mark.parametrize(
    ("owner", "reason"), [("main", "WaitsForEarlier"), ("main-worker", "Refused")]
)
def test_what_is_waited_for_is_said(owner: str, reason: str) -> None:
    spec = ShuffleClusterSpec(store=Store(url="s3://b/p"))
    others = {ChildKey("Service", "main-worker"): _another(owner)}
    observed = Observed(cluster=cluster(spec), others=others)
    found = cluster_status(observed, refused=taken(observed), now="2026-01-01T00:00:00Z")
    (said,) = [c for c in found["conditions"] if c["type"] == "Progressing"]
    assert said["reason"] == reason
    assert "the Service main-worker" in said["message"]
    assert ("ShuffleCluster main-worker" in said["message"]) == (owner != "main")


def test_what_was_not_seen_is_asked_for_before_it_is_made() -> None:
    spec = ShuffleClusterSpec(store=Store(url="s3://b/p"))
    wanted = {ChildKey(kind.name, body["metadata"]["name"]) for kind, body in
              objects(cluster(spec), GIVEN)}  # fmt: skip
    found = unknown(Observed(cluster=cluster(spec)), GIVEN)
    assert {ChildKey(kind.name, name) for kind, name in found} == wanted
    world = World()
    world.round(cluster(spec))
    assert unknown(Observed(cluster=cluster(spec), children=world.children), GIVEN) == []


def test_secrets_are_looked_at_again_when_they_are_due() -> None:
    world, spec = World(), ShuffleClusterSpec(store=Store(url="s3://b/p"))
    touched = world.round(cluster(spec))
    secrets = {key for key in touched if key.kind == SECRET.name}
    assert secrets == {ChildKey("Secret", "main-key"), ChildKey("Secret", "main-tls")}
    children = {key: replace(child, renew_at=10.0) for key, child in world.children.items()
                if key in secrets}  # fmt: skip
    world.children |= children

    def at(now: float) -> Observed:
        return Observed(
            cluster=cluster(spec), children=world.children, applied=world.applied, now=now
        )

    assert plan(at(9.0), GIVEN) == []
    assert next_renewal(at(9.0)) == 10.0
    assert [type(each) for each in plan(at(10.0), GIVEN)] == [RenewKeys, RenewCertificate]
    key = ChildKey("Secret", "main-key")
    world.children[key] = replace(world.children[key], renew_at=20.0)
    spec = replace(spec, security=replace(spec.security, tls=Tls(mode=TlsMode.DISABLED)))
    assert next_renewal(at(9.0)) == 20.0, "a certificate that nobody uses is not looked at"


def test_credentials_of_the_store_are_files_and_in_no_environment() -> None:
    store = Store(url="s3://b/p", credentials_secret_ref=SecretReference(name="s3"))
    pod = pod_template(cluster(ShuffleClusterSpec(store=store)), "image")["spec"]
    (worker,) = pod["containers"]
    assert "envFrom" not in worker
    assert "s3" not in str(worker["env"])
    (mount,) = [each for each in worker["volumeMounts"] if each["name"] == "store"]
    assert f"--store-credentials={mount['mountPath']}" in worker["command"]
    assert {"name": "store", "secret": {"secretName": "s3"}} in pod["volumes"]
