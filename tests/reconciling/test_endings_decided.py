"""What is decided at the end of jobs and clusters, and said of their stores; no I/O."""

import base64
import datetime as dt
import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.errors import ConfigError
from crossdock_operator.api.cluster import ShuffleClusterSpec, Store
from crossdock_operator.api.common import SecretReference
from crossdock_operator.api.job import ShuffleJobSpec
from crossdock_operator.plan import names
from crossdock_operator.plan.conditions import NO, UNKNOWN, YES
from crossdock_operator.plan.ending import (
    cluster_uid,
    deleting,
    holding,
    is_abandoned,
    is_held,
    is_held_for_another,
    job_end_status,
    releasing,
    sees_all_jobs,
    unfinished,
    waiting_for,
    worker_addresses,
    worker_pods,
    worker_urls,
)
from crossdock_operator.plan.findings import (
    NOTHING,
    Findings,
    audit_due_seconds,
    storage_clean,
    storage_status,
    store_reachable,
)
from crossdock_operator.records import Cluster, Job, Key
from crossdock_operator.storage.access import Access, access_to
from crossdock_operator.storage.keepers import environment
from crossdock_operator.storage.tasks import Audited, Probed

NOW = "2026-01-01T00:00:00Z"


def job(**more: Any) -> Job:
    plain: dict[str, Any] = {
        "key": Key("data", "wordcount"), "uid": "j-1", "generation": 1, "deleting": False,
        "finalizers": (), "spec": ShuffleJobSpec(), "status": {}, "version": "7",
    }  # fmt: skip
    return Job(**{**plain, **more})


def cluster(**more: Any) -> Cluster:
    spec = ShuffleClusterSpec(
        store=Store(url="s3://b/p", credentials_secret_ref=SecretReference(name="s3"))
    )
    plain: dict[str, Any] = {
        "key": Key("data", "main"), "uid": "c-1", "generation": 1, "deleting": False,
        "spec": spec, "status": {},
    }  # fmt: skip
    return Cluster(**{**plain, **more})


def applied(patch: dict[str, Any], thing: Job) -> Job:
    """Return a job after a merge patch."""
    metadata = patch["metadata"]
    return replace(
        thing,
        finalizers=tuple(metadata.get("finalizers", thing.finalizers)),
        annotations={**thing.annotations, **metadata["annotations"]},
    )


@given(others=st.lists(st.sampled_from(["a/b", "c/d"]), unique=True))
def test_a_job_is_held_and_let_go_beside_others(others: list[str]) -> None:
    before = job(finalizers=tuple(others))
    note = {names.held_note(before.uid): "c-1"}
    patch = holding(before, note)
    assert patch is not None
    assert patch["metadata"]["resourceVersion"] == "7", "or a finalizer of others may be lost"
    held = applied(patch, before)
    assert is_held(held)
    assert cluster_uid(held) == "c-1"
    assert set(held.finalizers) == {*others, names.FINALIZER}
    assert holding(held, note) is None
    assert not is_held_for_another(held)
    exported = replace(held, uid="another")
    assert is_held_for_another(exported)
    assert cluster_uid(exported) == ""
    earlier = replace(held, annotations={names.CLUSTER_UID: "c-1"})
    assert cluster_uid(earlier) == "c-1", "the version before has noted it so"
    *tests, step = releasing(held)
    assert {"op": "test", "path": step["path"], "value": names.FINALIZER} in tests
    assert held.finalizers[int(step["path"].rpartition("/")[2])] == names.FINALIZER


def test_only_the_word_itself_abandons() -> None:
    assert not is_abandoned(job(annotations={names.ABANDON: "true"}))
    assert is_abandoned(job(annotations={names.ABANDON: names.ABANDON_VALUE}))
    said = unfinished("the store is away", "store_unavailable", kind="ShuffleJob")
    assert f"{names.ABANDON}: {names.ABANDON_VALUE}" in said.message
    assert (said.status, said.reason) == (NO, "StoreUnavailable")
    assert len(unfinished("x" * 10_000, "", kind="ShuffleJob").message) <= 2048


def test_the_status_of_a_job_keeps_what_was_said_before() -> None:
    other = {"type": "Complete", "status": YES, "reason": "Done", "lastTransitionTime": "then"}
    before = job(deleting=True, status={"progress": "2/2", "conditions": [other]})
    status = job_end_status(before, deleting(30), now=NOW)
    assert (status["phase"], status["progress"]) == ("Deleting", "2/2")
    assert status["conditions"][0] == other
    again = job_end_status(replace(before, status=status), deleting(30), now="later")
    assert again == status, "nothing is written where nothing changed"


def pod(name: str, phase: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"phase": phase}}


def test_only_pods_that_ran_are_told() -> None:
    pods = [pod("b", "Running"), pod("a", "Unknown"), pod("c", "Pending"), pod("d", "Succeeded")]
    assert worker_pods(pods) == ["a", "b"]
    assert worker_urls(
        ["m-worker-0"], scheme="https", namespace="data", cluster="m", processes=2
    ) == (
        "https://m-worker-0.m-worker.data.svc:7070",
        "https://m-worker-0.m-worker.data.svc:7071",
    )


def test_pods_are_found_without_dns() -> None:
    pods = [{"metadata": {"name": "m-worker-0"}, "status": {"podIP": "10.0.0.7"}}, pod("b", "x")]
    assert worker_addresses(pods, namespace="data", cluster="m") == (
        ("m-worker-0.m-worker.data.svc", "10.0.0.7"),
    )


@pytest.mark.parametrize(
    ("watched", "taken", "all_seen"),
    [
        ((), ("",), True),
        (("a",), ("a",), True),
        (("a",), ("",), False),
        (("b",), ("a",), False),
    ],
)
def test_who_does_not_see_all_jobs_deletes_nothing(
    watched: tuple[str, ...], taken: tuple[str, ...], *, all_seen: bool
) -> None:
    assert sees_all_jobs(watched, taken) is all_seen


def test_a_cluster_names_the_jobs_that_it_waits_for() -> None:
    jobs = [job(key=Key("data", f"job-{n}")) for n in range(7)]
    said = waiting_for(jobs).message
    assert said.startswith("7 ShuffleJobs")
    assert said.endswith("data/job-4 and 2 more")


# -- what is said of stores -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        (NOTHING, UNKNOWN, "NotChecked"),
        (Findings(probe_problem="no Secret"), NO, "NotProbed"),
        (Findings(probed=Probed(problems={})), YES, "Probed"),
        (Findings(probed=Probed(problems={"list": "timeout"})), NO, "Unreachable"),
        (Findings(probed=Probed(problems={"delete": "403"})), NO, "Denied"),
        (Findings(probed=Probed(problems={"put": "403"})), NO, "Denied"),
        (Findings(probed=Probed(problems={}, lifecycle=("none",))), YES, "NoLifecycleRule"),
    ],
)
def test_whether_a_store_is_reachable(found: Findings, status: str, reason: str) -> None:
    answer = store_reachable(cluster(), found)
    assert (answer.status, answer.reason) == (status, reason)


def test_the_operators_own_account_need_not_write() -> None:
    spec = ShuffleClusterSpec(store=Store(url="s3://b/p", service_account_name="store"))
    found = Findings(probed=Probed(problems={"put": "403"}))
    assert store_reachable(cluster(spec=spec), found).status == YES


@pytest.mark.parametrize(
    ("audited", "status", "reason"),
    [
        (Audited(), YES, "Audited"),
        (Audited(orphans=2), NO, "Orphans"),
        (Audited(silent=("http://a",)), UNKNOWN, "NotAllKnown"),
        (Audited(unsure=1), UNKNOWN, "NotAllKnown"),
        (Audited(young=1), YES, "Audited"),
    ],
)
def test_whether_storage_is_clean(audited: Audited, status: str, reason: str) -> None:
    answer = storage_clean(cluster(), Findings(audited=audited, audited_at=NOW))
    assert (answer.status, answer.reason) == (status, reason)


def test_an_operator_that_begins_says_what_was_said_before() -> None:
    said = {"type": "StorageClean", "status": YES, "reason": "Audited", "message": "m"}
    last = {"lastAuditTime": "2026-01-01T00:00:00Z", "orphans": 0}
    before = cluster(status={"conditions": [said], "storage": last})
    assert storage_clean(before, NOTHING).reason == "Audited"
    assert storage_status(before, NOTHING) == last
    now = dt.datetime.fromisoformat("2026-01-01T00:50:00+00:00")
    assert audit_due_seconds(before, now) == 600.0
    assert audit_due_seconds(cluster(), now) == 0.0
    assert audit_due_seconds(before, now + dt.timedelta(days=1)) == 0.0


# -- access -----------------------------------------------------------------------------------


def secret(**data: str) -> dict[str, Any]:
    return {"data": {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}}


def test_a_copy_is_what_it_is_of() -> None:
    credentials = secret(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
    access = access_to(cluster(), keys="k\n", credentials=credentials, authority="PEM")
    assert Access.from_secret(access.to_secret("crossdock")) == access
    with pytest.raises(ConfigError):
        Access.from_secret({"metadata": {"name": "x"}, "data": {"access": "e30="}})


def test_a_missing_secret_says_which() -> None:
    with pytest.raises(ConfigError, match="no Secret s3"):
        access_to(cluster(), keys="k\n", credentials=None, authority="")


def test_nothing_of_a_secret_can_turn_a_process_round() -> None:
    """Whoever writes the Secret is not the operator, and its process runs with its rights."""
    bad = {"LD_PRELOAD": "x", "PYTHONPATH": "x", "AWS_WEB_IDENTITY_TOKEN_FILE": "x",
           "AWS_ENDPOINT_URL_STS": "x", "AWS_CONFIG_FILE": "x"}  # fmt: skip
    credentials = secret(AWS_ACCESS_KEY_ID="a", **bad)
    access = access_to(cluster(), keys="k\n", credentials=credentials, authority="")
    assert access.credentials == {"AWS_ACCESS_KEY_ID": "a"}


def test_a_cluster_with_a_secret_gets_nothing_of_the_operators_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the operator's")
    monkeypatch.setenv("AWS_ROLE_ARN", "the operator's")
    found = environment(own=False)
    assert {k for k in found if k.startswith("AWS_")} == {"AWS_EC2_METADATA_DISABLED"}
    assert environment(own=True) == dict(os.environ)
