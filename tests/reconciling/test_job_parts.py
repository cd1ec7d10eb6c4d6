"""What is decided about ShuffleJobs without I/O: acceptance, lifetimes, Jobs, state, status."""

import dataclasses
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.errors import ConfigError
from crossdock.jobfile.build import build
from crossdock.stages.states import Checkpoint, StageCheckpoint
from crossdock_operator.api.cluster import (
    AllowedNamespaces,
    NamespacesFrom,
    ShuffleClusterSpec,
    Store,
)
from crossdock_operator.api.job import ClusterReference, ShuffleJobSpec
from crossdock_operator.api.lifecycle import JobDefaults, Lifecycle
from crossdock_operator.jobs.acceptance import judge, needs_labels
from crossdock_operator.jobs.batch import Batch, Role, batch_of, parse_indexes
from crossdock_operator.jobs.pods import failure_of
from crossdock_operator.jobs.render import stage_job
from crossdock_operator.jobs.staged import Staged
from crossdock_operator.jobs.state import Ended, State
from crossdock_operator.kinds import Object
from crossdock_operator.plan.conditions import NO, YES, Answer
from crossdock_operator.plan.job_status import Seen, StageRow, job_status, only_numbers_differ
from crossdock_operator.plan.lifetimes import lifetimes
from crossdock_operator.plan.usage import Usage, data_durable
from crossdock_operator.records import Cluster, Job, Key

NOW = "2026-11-22T04:00:00Z"
ACCEPTED = Answer("Accepted", YES, "Accepted")
TEN = Usage(worker_bytes=10)


def stage(name: str = "words", **fields: Any) -> dict[str, Any]:
    container = {"name": "task", "image": "example.com/task", "command": ["python", "task.py"]}
    return {
        "name": name,
        "parallelism": 3,
        "podTemplate": {"spec": {"containers": [container]}},
        "output": {"shuffle": {"partitions": 2}},
        **fields,
    }


def job(*stages: dict[str, Any], status: Object | None = None, **spec: Any) -> Job:
    return Job(
        key=Key("jobs", "wordcount"),
        uid="1f0c7a52-0000-4000-8000-000000000000",
        generation=1,
        created=1000.0,
        deleting=False,
        finalizers=(),
        spec=ShuffleJobSpec(stages=stages, **spec),
        status=status or {},
    )


def cluster(namespace: str = "jobs", **spec: Any) -> Cluster:
    return Cluster(
        key=Key(namespace, "default"),
        uid="c",
        generation=1,
        deleting=False,
        spec=ShuffleClusterSpec(store=Store(url="s3://bucket/x"), **spec),
        status={},
    )


# -- acceptance ----------------------------------------------------------------------------


def away(mode: NamespacesFrom, **selector: str) -> Cluster:
    allowed = AllowedNamespaces(mode=mode, selector=selector or None)
    return cluster("shuffles", allowed_namespaces=allowed)


@pytest.mark.parametrize(
    ("mode", "labels", "taken"),
    [
        (NamespacesFrom.SAME, {}, False),
        (NamespacesFrom.ALL, {}, True),
        (NamespacesFrom.SELECTOR, {"team": "data"}, True),
        (NamespacesFrom.SELECTOR, {"team": "web"}, False),
        (NamespacesFrom.SELECTOR, {}, False),
    ],
)
def test_the_cluster_says_whose_jobs_it_takes(
    mode: NamespacesFrom, labels: dict[str, str], taken: bool
) -> None:
    found = away(mode, **({"team": "data"} if mode is NamespacesFrom.SELECTOR else {}))
    reference = ClusterReference(name="default", namespace="shuffles")
    asked = job(stage(), cluster_ref=reference)
    assert needs_labels(asked, found) == (mode is NamespacesFrom.SELECTOR)
    answer = judge(asked, found, labels)
    assert (answer.status, answer.reason) == (
        (YES, "Accepted") if taken else (NO, "NamespaceNotAllowed")
    )


def test_a_job_of_the_clusters_own_namespace_is_always_taken() -> None:
    found = cluster(allowed_namespaces=AllowedNamespaces(mode=NamespacesFrom.SAME))
    assert judge(job(stage()), found, {}).status == YES
    assert not needs_labels(job(stage()), found)


def test_defaults_of_the_api_server_are_no_mistakes() -> None:
    files = {"files": "/data/*", "read": "Partitions", "split": False}
    assert judge(job(stage(inputs=[files], parallelism="auto")), cluster(), {}).status == YES


def test_the_quota_may_be_as_large_as_the_cluster_lets_it() -> None:
    found = cluster(jobs=JobDefaults(most_quota=2**30))
    assert judge(job(quota=2**30), found, {}).status == YES
    assert judge(job(quota=2**30 + 1), found, {}).reason == "QuotaTooLarge"
    assert judge(job(), found, {}).status == YES


def test_a_cluster_that_goes_takes_no_job() -> None:
    found = dataclasses.replace(cluster(), deleting=True)
    assert judge(job(stage()), found, {}).reason == "ClusterNotFound"


# -- lifetimes -----------------------------------------------------------------------------


def test_a_job_has_its_own_lifetimes_else_its_clusters() -> None:
    given = Lifecycle(ttl_seconds_after_success=60, max_age_seconds=100, keep_on_failure=True)
    found = cluster(jobs=JobDefaults(lifecycle=given))
    plain = lifetimes(job(), found)
    assert (plain.after_success_seconds, plain.after_failure_seconds) == (60, None)
    assert (plain.max_age_seconds, plain.keep_on_failure) == (100, True)
    own = Lifecycle(ttl_seconds_after_success=0, max_age_seconds=0, keep_on_failure=False)
    mine = lifetimes(job(lifecycle=own), found)
    assert (mine.after_success_seconds, mine.max_age_seconds) == (0, None)
    assert not mine.keep_on_failure


@given(own=st.none() | st.integers(0, 500), most=st.none() | st.integers(0, 500))
def test_no_lifetime_is_over_the_clusters_cap(own: int | None, most: int | None) -> None:
    found = cluster(jobs=JobDefaults(most_ttl_seconds=most, most_age_seconds=most))
    life = Lifecycle(ttl_seconds_after_failure=own, max_age_seconds=own)
    limits = lifetimes(job(lifecycle=life), found)
    for value, asked in ((limits.ttl_seconds(failed=True), own), (limits.max_age_seconds, own)):
        if most is not None:
            assert value is not None
            assert value <= most
        elif asked:
            assert value == asked


# -- Jobs ----------------------------------------------------------------------------------


def batch(**fields: Any) -> Batch:
    given = {"role": Role.TASKS, "stage": "words", "attempt": 7 << 16, "tasks": 3}
    return Batch(**(given | fields))


def rendered(found: Batch, template: dict[str, Any] | None = None, **more: Any) -> Object:
    arguments: dict[str, Any] = {"endpoint": "http://main", "tls": False, "suspend": False}
    body = stage()["podTemplate"] if template is None else template
    return stage_job(job(stage()), found, body, files=["f-0", "f-1"], **(arguments | more))


@given(st.sets(st.integers(0, 300)))
def test_indexes_are_read_as_kubernetes_writes_them(indexes: set[int]) -> None:
    parts: list[list[int]] = []
    for index in sorted(indexes):
        if parts and parts[-1][-1] == index - 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    text = ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
    assert set(parse_indexes(text)) == indexes


@pytest.mark.parametrize("index", [None, 2])
def test_a_later_operator_reads_the_job_that_an_earlier_one_made(index: int | None) -> None:
    made = batch(index=index)
    body = rendered(made)
    body["status"] = {"active": 1, "completedIndexes": "0", "failedIndexes": ""}
    found = batch_of(body)
    assert found == dataclasses.replace(made, active=1, completed="0")
    assert found.done == frozenset({index or 0})


def test_only_the_task_that_runs_alone_is_told_its_index() -> None:
    def variables(body: Object) -> dict[str, str]:
        container = body["spec"]["template"]["spec"]["containers"][0]
        return {v["name"]: v.get("value", "") for v in container["env"]}

    assert "JOB_COMPLETION_INDEX" not in variables(rendered(batch()))
    alone = rendered(batch(index=2))
    assert variables(alone)["JOB_COMPLETION_INDEX"] == "2"
    assert (alone["spec"]["completions"], alone["spec"]["parallelism"]) == (1, 1)
    assert rendered(batch())["spec"]["completions"] == 3


def test_what_the_template_says_of_our_variables_does_not_count() -> None:
    template = stage()["podTemplate"]
    own = [{"name": "CROSSDOCK_TOKEN_FILE", "value": "/theirs"}, {"name": "MINE", "value": "x"}]
    template["spec"]["containers"][0]["env"] = own
    template["spec"]["restartPolicy"] = "OnFailure"
    template["metadata"] = {"labels": {"team": "data"}, "name": "theirs"}
    body = rendered(batch(), template)["spec"]["template"]
    env = body["spec"]["containers"][0]["env"]
    named = [v["name"] for v in env]
    assert len(named) == len(set(named)), "the API server takes each once"
    assert {"name": "MINE", "value": "x"} in env
    assert "/theirs" not in str(env)
    assert body["spec"]["restartPolicy"] == "Never"
    assert body["metadata"]["labels"]["team"] == "data"
    assert "name" not in body["metadata"]
    assert template["spec"]["containers"][0]["env"] == own, "the job's own is as it was"


def test_disruptions_are_kubernetes_to_mend_and_failures_are_not() -> None:
    spec = rendered(batch())["spec"]
    assert spec["backoffLimitPerIndex"] == 0
    assert [r["action"] for r in spec["podFailurePolicy"]["rules"]] == ["Ignore"]


@given(
    name=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True),
    of=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True),
)
def test_names_of_jobs_leave_room_for_the_index(name: str, of: str) -> None:
    found = batch(stage=of).name(name, "uid")
    assert len(f"{found}-99999") <= 63
    assert found != batch(stage=of, attempt=8 << 16).name(name, "uid")


def test_of_several_jobs_with_one_task_the_newest_counts() -> None:
    model = build(
        {"metadata": {"name": "job"}, "spec": {"stages": [stage(inputs=[])]}}, for_clusters=()
    )
    kept = Checkpoint(stages={"words": StageCheckpoint(shares=({}, {}, {}), since=1 << 16)})
    driver = Staged(model, "uid", epoch=9, checkpoint=kept)
    jobs = {
        "all": batch(attempt=1 << 16, completed="0-1"),
        "again": batch(attempt=5 << 16, index=1),
        "older": batch(attempt=0, completed="0-2"),
    }
    done, running = driver.under_way("words", jobs)
    assert done == {0: 1 << 16}, "1 was lost after it was done"
    assert running == {1: 5 << 16, 2: 1 << 16}


# -- state ---------------------------------------------------------------------------------


def test_state_survives() -> None:
    checkpoint = Checkpoint(
        stages={
            "words": StageCheckpoint(
                shares=({"partitions": [0, 2]},),
                since=2**60,
                winners={0: 2**60 + 5},
                contents={0: "d"},
            ),
            "later": StageCheckpoint(shares=({},), since=1),
        }
    )
    state = State(
        document={"metadata": {"name": "x"}, "spec": {"stages": [stage()]}},
        epoch=3,
        checkpoint=checkpoint,
        files={"words": ("a", "b")},
        since=12.5,
        ended=Ended(failure="why", reason="TaskFailed", at=3.0),
    )
    assert State.decode(state.encode()) == state


@pytest.mark.parametrize(
    "data", [b"", b"x", zlib.compress(b"{}")[:-3], zlib.compress(b" " * 2**27)], ids=len
)
def test_a_state_that_somebody_else_wrote_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match="state of the job"):
        State.decode(data)


def test_a_state_that_no_object_can_hold_is_refused() -> None:
    contents = {n: f"{n * 2654435761 % 2**128:032x}" for n in range(200_000)}
    stages = {"words": StageCheckpoint(shares=({},), contents=contents)}
    with pytest.raises(ConfigError, match="fewer tasks"):
        State(document={}, checkpoint=Checkpoint(stages=stages)).encode()


def test_the_clock_of_the_deadline_stops_while_a_job_is_suspended() -> None:
    state = State(document={}, since=100.0)
    paused = state.paused(130.0, suspend=True)
    assert paused.run_seconds(500.0) == 30.0
    assert paused.paused(500.0, suspend=True) == paused
    again = paused.paused(500.0, suspend=False)
    assert again.run_seconds(510.0) == 40.0


# -- what is told --------------------------------------------------------------------------


def pod(**status: Any) -> Object:
    return {"metadata": {"name": "words-0"}, "status": {"phase": "Failed", **status}}


def ended(**state: Any) -> list[Object]:
    return [{"state": {"terminated": state}}]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            pod(containerStatuses=ended(exitCode=1, reason="Error", message="a\nlast words\n\n")),
            "pod words-0: exit code 1: last words",
        ),
        (
            pod(containerStatuses=ended(exitCode=137, reason="OOMKilled")),
            "pod words-0: exit code 137, OOMKilled",
        ),
        (pod(reason="Evicted", message="disk"), "pod words-0: Evicted: disk"),
        (pod(), "pod words-0 failed"),
    ],
)
def test_why_a_pod_failed(found: Object, said: str) -> None:
    assert failure_of(found) == said


def test_the_status_keeps_what_a_later_operator_does_not_know() -> None:
    rows = [StageRow(name="words", phase="Done", tasks=3, done=3, bytes=10)]
    seen = Seen(accepted=ACCEPTED, ready="", stages=rows, connection="c", usage=TEN)
    first = job_status(job(stage()), seen, now=NOW)
    assert (first["phase"], first["progress"], first["connectionSecret"]) == ("Running", "1/1", "c")
    later = job_status(job(stage(), status=first), Seen(accepted=ACCEPTED), now="later")
    assert later == first, "nothing to write"


def test_numbers_alone_can_wait() -> None:
    def status(done: int, phase: str, size: int) -> Object:
        rows = [StageRow(name="words", phase=phase, tasks=3, done=done)]
        seen = Seen(accepted=ACCEPTED, ready="", stages=rows, usage=Usage(worker_bytes=size))
        return job_status(job(stage()), seen, now=NOW)

    assert only_numbers_differ(status(1, "Running", 5), status(2, "Running", 6))
    assert not only_numbers_differ(status(2, "Running", 6), status(3, "Done", 6))


@pytest.mark.parametrize(
    ("policy", "usage", "status", "reason"),
    [
        ("OnPressure", Usage(), YES, "NoData"),
        ("OnPressure", Usage(worker_bytes=5, disk_only_bytes=5), NO, "OnDisks"),
        ("OnPressure", Usage(worker_bytes=5, store_bytes=5), YES, "Persisted"),
        ("Never", Usage(worker_bytes=5, disk_only_bytes=5), NO, "OnDisks"),
        ("Eager", Usage(worker_bytes=5, disk_only_bytes=1, store_bytes=4), NO, "Persisting"),
        ("Eager", Usage(store_bytes=5), YES, "Persisted"),
        ("BeforeAck", Usage(worker_bytes=5, disk_only_bytes=5), YES, "BeforeAck"),
        ("BeforeAck", Usage(whole=False), "Unknown", "WorkersSilent"),
    ],
)
def test_whether_data_outlives_the_workers(
    policy: str, usage: Usage, status: str, reason: str
) -> None:
    answer = data_durable(policy, usage)
    assert (answer.type, answer.status, answer.reason) == ("DataDurable", status, reason)


def test_what_was_said_of_data_stays_until_workers_say_more() -> None:
    durable = data_durable("Eager", TEN)
    first = job_status(
        job(), Seen(accepted=ACCEPTED, ready="", usage=TEN, durable=durable), now=NOW
    )
    later = job_status(job(status=first), Seen(accepted=ACCEPTED), now="later")
    assert later == first
    assert later["estimatedCost"] == "0.0000"
