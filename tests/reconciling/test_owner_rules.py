"""What an owner means for its job, decided without I/O."""

import dataclasses
from typing import Any

import pytest

from crossdock.errors import ConfigError
from crossdock_operator.api.job import OwnerReference, ShuffleJobSpec
from crossdock_operator.kinds import Object
from crossdock_operator.plan.owners import (
    ALWAYS,
    WAIT_SECONDS,
    Fate,
    OwnerKind,
    Sight,
    place_of,
    refusal,
    sight_of,
    verdict,
)
from crossdock_operator.rbac import looked_after
from crossdock_operator.records import Job, Key

CREATED = 1000.0


def job(*, known: str = "", kind: str = "Pod", version: str = "v1") -> Job:
    owner = OwnerReference(api_version=version, kind=kind, name="driver")
    return Job(
        key=Key("jobs", "wordcount"),
        uid="1f0c7a52",
        generation=1,
        created=CREATED,
        deleting=False,
        finalizers=(),
        spec=ShuffleJobSpec(owner=owner),
        status={"ownerUid": known} if known else {},
    )


@pytest.mark.parametrize(
    ("status", "fate", "message"),
    [
        ({}, Fate.RUNS, ""),
        ({"phase": "Running"}, Fate.RUNS, ""),
        ({"phase": "Succeeded"}, Fate.SUCCEEDED, ""),
        ({"phase": "Failed", "reason": "Evicted", "message": "no disk"}, Fate.FAILED,
         "Evicted: no disk"),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, Fate.SUCCEEDED, ""),
        ({"conditions": [{"type": "Complete", "status": "False"}]}, Fate.RUNS, ""),
        ({"conditions": [{"type": "FailureTarget", "status": "True"}]}, Fate.RUNS, ""),
        ({"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]},
         Fate.FAILED, "DeadlineExceeded"),
        ({"applicationState": {"state": "RUNNING"}}, Fate.RUNS, ""),
        ({"applicationState": {"state": "COMPLETED"}}, Fate.SUCCEEDED, ""),
        ({"applicationState": {"state": "SUBMISSION_FAILED"}}, Fate.RUNS, ""),
        ({"applicationState": {"state": "FAILED", "errorMessage": "exit 1"}}, Fate.FAILED,
         "exit 1"),
    ],
)  # fmt: skip
def test_how_an_owner_is(status: Object, fate: Fate, message: str) -> None:
    body = {"metadata": {"uid": "u"}, "status": status}
    assert sight_of(body) == Sight("u", fate, message)


def look(known: str = "", sight: Sight | None = None, *, problem: str = "", at: float = 0) -> Any:
    return verdict(job(known=known), sight, problem=problem, now=CREATED + at)


def test_one_that_runs_ends_nothing() -> None:
    runs = Sight("u", Fate.RUNS)
    for known in ("", "u"):
        found = look(known, runs, at=WAIT_SECONDS * 9)
        assert (found.uid, found.waits, found.end) == ("u", "", None)


def test_one_that_is_not_there_yet_is_waited_for() -> None:
    found = look(at=WAIT_SECONDS - 1)
    assert found.end is None
    assert found.again_seconds == 1
    assert "there is no Pod driver yet" in found.waits
    end = look(at=WAIT_SECONDS).end
    assert (end.reason, end.good) == ("OwnerNotFound", False)


def test_one_that_is_going_is_no_new_jobs() -> None:
    going = sight_of({"metadata": {"uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert look("", going).waits
    assert look("u", going).end is None, "it has not ended yet"


def test_what_cannot_be_seen_ends_nothing() -> None:
    for known in ("", "u"):
        found = look(known, problem="the API server is away", at=WAIT_SECONDS * 9)
        assert found.end is None
        assert found.uid == known
        assert "the API server is away" in found.waits


@pytest.mark.parametrize(
    ("sight", "said"),
    [
        (None, "deleted"),
        (Sight("other", Fate.RUNS), "replaced by another of its name"),
        (Sight("other", Fate.SUCCEEDED), "replaced by another of its name"),
    ],
)
def test_one_that_was_there_and_is_not(sight: Sight | None, said: str) -> None:
    end = look("u", sight).end
    assert end.reason == "OwnerDeleted"
    assert end.message.endswith(f" was {said}")


def test_one_that_has_ended() -> None:
    assert look("u", Sight("u", Fate.SUCCEEDED)).end.good
    failed = look("", Sight("u", Fate.FAILED, "Evicted")).end
    assert (failed.reason, failed.good) == ("OwnerFailed", False)
    assert failed.message == "Pod driver has failed: Evicted"


def test_kinds_of_owners() -> None:
    spark = OwnerKind.parse("SparkApplication.sparkoperator.k8s.io")
    wanted = job(kind="SparkApplication", version="sparkoperator.k8s.io/v1beta2")
    assert "--owner-kinds SparkApplication.sparkoperator.k8s.io" in refusal(wanted, ALWAYS)
    assert not refusal(wanted, (*ALWAYS, spark))
    assert not refusal(job(), ALWAYS)
    assert refusal(job(version="example.com/v1"), ALWAYS), "a Pod of another group is no Pod"
    assert not refusal(dataclasses.replace(job(), spec=ShuffleJobSpec()), ())
    assert wanted.spec.owner is not None
    path = place_of(wanted.spec.owner, [spark]).path("jobs")
    assert path == "/apis/sparkoperator.k8s.io/v1beta2/namespaces/jobs/sparkapplications"
    rule = looked_after(owners=[spark])[-1]
    assert rule["apiGroups"] == ["sparkoperator.k8s.io"]
    assert (rule["resources"], rule["verbs"]) == (["sparkapplications"], ["list"])


def test_a_kind_whose_resource_is_called_otherwise() -> None:
    kind = OwnerKind.parse("Sheep.example.com=sheep")
    wanted = job(kind="Sheep", version="example.com/v1")
    assert not refusal(wanted, (*ALWAYS, kind))
    assert wanted.spec.owner is not None
    path = place_of(wanted.spec.owner, (*ALWAYS, kind)).path("jobs")
    assert path == "/apis/example.com/v1/namespaces/jobs/sheep"
    assert looked_after(owners=[kind])[-1]["resources"] == ["sheep"]


@pytest.mark.parametrize(
    ("kind", "plural"), [("Pod", "pods"), ("Proxy", "proxies"), ("Gateway", "gateways"),
                         ("RayJob", "rayjobs"), ("Ingress", "ingresses"), ("Mesh", "meshes")]
)  # fmt: skip
def test_plurals(kind: str, plural: str) -> None:
    assert OwnerKind(kind).plural == plural


@pytest.mark.parametrize("text", ["", "pod", "Job.", "Job batch", ".batch", "Job.batch="])
def test_kinds_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no kind of owners.*such as Job"):
        OwnerKind.parse(text)
