"""Audits of real stores: what is an orphan is found, and goes; nothing else does."""

import json
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from places import Place, Tally
from servers import S3Server, s3_options
from typer.testing import CliRunner

from crossdock.cancel import Cancel
from crossdock.cleanup import sweeping
from crossdock.cleanup.audit import AuditOptions, audit
from crossdock.cleanup.cli import run_audit
from crossdock.cleanup.fleet import Fleet
from crossdock.cleanup.sweeping import Rules, Sweep, sweep
from crossdock.cluster import connect
from crossdock.errors import CleanupUnfinished, ConfigError
from crossdock.lifecycle.sweep import Verdict
from crossdock.lifecycle.timing import Timing
from crossdock.store.api import Store, Verb
from crossdock.store.layout import INTENT_ORDINALS, ShuffleLayout, closed_homes
from crossdock.store.opening import open_store
from crossdock.views import ShuffleKey
from harness import KEY, StartWorker, WorkerProcess, eventually

MIB = 2**20


def put_job(store: Store, job: str, *, cluster: str = "c", intent: bool = False) -> list[str]:
    """Write what a job of two shuffles has; return the keys."""
    keys = [f"{closed_homes(cluster, job)}worker"]
    for name in ("a", "b"):
        layout = ShuffleLayout.of(cluster, ShuffleKey(job, name, 0))
        keys += [layout.segment("run", 0), layout.record("run"), layout.log("other"), layout.seal]
        if intent:
            keys.append(layout.intent("run"))
    for key in keys:
        store.put(key, b"data")
    return sorted(keys)


def rules(*live: str, cluster: str = "c", grace: float = 0.0, known: bool = True) -> Rules:
    return Rules(
        cluster=cluster,
        grace_seconds=grace,
        timing=Timing(clock_margin=0.0),
        live=frozenset(live) if known else None,
        asked=time.monotonic(),
    )


def swept(store: Store, rule: Rules, *, delete: bool = False) -> Sweep:
    return sweep([store], rule, delete=delete, fence=None, cancel=Cancel("test"))


def listed(store: Store, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def when_old(store: Store) -> None:
    """Wait until what was just written is older than a second: stores tell whole ones."""
    began = store.now()
    assert began is not None
    eventually(lambda: (store.now() or began) - began >= timedelta(seconds=2), pause=0.1)


def test_only_what_has_no_live_job_goes(store: Store) -> None:
    dead = put_job(store, "dead", intent=True)
    kept = [*put_job(store, "live"), *put_job(store, "dead", cluster="cc")]
    store.put("c/notes.txt", b"somebody's")
    store.put("c/dead/0000/a/0/segments/run/0/more", b"not made as ours are")
    kept += ["c/notes.txt", "c/dead/0000/a/0/segments/run/0/more"]
    when_old(store)
    found = swept(store, rules("live"))
    assert found.of(Verdict.ORPHAN).objects == len(dead)
    assert found.of(Verdict.LIVE).objects == 9
    assert found.of(Verdict.FOREIGN).objects == 2
    assert [(j.job, j.verdict, j.tally.objects) for j in found.jobs] == [
        ("dead", Verdict.ORPHAN, len(dead))
    ]
    assert found.jobs[0].oldest_seconds >= 1
    assert not found.deleted.things
    assert listed(store) == sorted([*dead, *kept])

    first = swept(store, rules("live"), delete=True)
    assert first.deleted.objects == len(dead) - 2  # intents of which something else was found
    second = swept(store, rules("live"), delete=True)
    assert second.deleted.objects == 2
    assert swept(store, rules("live"), delete=True).found.keys() == {Verdict.LIVE, Verdict.FOREIGN}
    assert listed(store) == sorted(kept)


def test_what_is_young_or_not_known_is_never_touched(store: Store) -> None:
    put_job(store, "job")
    before = listed(store)
    young = swept(store, rules(grace=3600), delete=True)
    assert young.found.keys() == {Verdict.YOUNG}
    unknown = swept(store, rules(known=False), delete=True)
    assert unknown.found.keys() == {Verdict.UNKNOWN}
    assert [(j.job, j.verdict) for j in unknown.jobs] == [("job", Verdict.UNKNOWN)]
    assert listed(store) == before


def test_unfinished_uploads_are_found_and_go(place: Place) -> None:
    store = place.store(replace(place.shape, part_bytes=5 * MIB, deadline_seconds=2))
    layout = ShuffleLayout.of("c", ShuffleKey("dead", "a", 0))
    store.put(layout.intent("run"), b"{}")
    store.put(layout.intent("run", 2), b"{}")
    kept = ShuffleLayout.of("c", ShuffleKey("live", "a", 0)).seal
    keys = [layout.segment("run", 2 * INTENT_ORDINALS + 1), kept]
    with ExitStack() as stack:
        for key in keys:
            stack.enter_context(store.upload(key)).write(bytes(6 * MIB))
        when_old(store)
        found = swept(store, rules("live"))
        seen = int(store.capabilities.lists_uploads)  # else only who deletes looks for them
        assert (found.of(Verdict.ORPHAN).uploads, found.of(Verdict.ORPHAN).objects) == (seen, 2)
        first = swept(store, rules("live"), delete=True)
        assert (first.deleted.uploads, first.deleted.objects) == (1, 0)
        second = swept(store, rules("live"), delete=True)
        assert (second.deleted.uploads, second.deleted.objects) == (0, 2)
        assert not listed(store)
        assert not list(store.uploads(keys[0]))
        assert [u.key for u in store.uploads(keys[1])] == keys[1:]


def test_who_only_looks_writes_nothing(moto: S3Server) -> None:
    url, tally = f"s3://{moto.bucket}/looking", Tally()
    writer = open_store(url, s3_options(moto))
    put_job(writer, "dead", intent=True)
    when_old(writer)
    store = open_store(url, s3_options(moto), meter=tally)
    assert swept(store, rules()).of(Verdict.ORPHAN).objects == 11
    assert set(tally.verbs()) == {Verb.LIST, Verb.LIST_UPLOADS}
    writer.close()
    store.close()


def test_a_pass_has_bounds_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "MOST_INTENTS", 3)
    monkeypatch.setattr(sweeping, "MOST_JOBS", 2)
    store = open_store(tmp_path.as_uri())
    for job in ("a", "b", "c"):
        layout = ShuffleLayout.of("c", ShuffleKey(job, "s", 0))
        for number in range(5):
            store.put(layout.intent(f"run-{number}"), b"{}")
    time.sleep(0.05)  # so that they are older than nothing, on the coarse clock of files
    found = swept(store, rules(), delete=True)
    assert found.cut_short
    assert (len(found.jobs), found.more_jobs) == (2, 1)
    assert found.deleted.objects == 9
    assert not swept(store, rules(), delete=True).cut_short
    assert not listed(store)


def test_a_job_is_fenced_before_anything_of_it_goes(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    before = {job: put_job(store, job) for job in ("a", "b", "c")}
    fenced: list[str] = []

    def fence(job: str) -> None:
        assert [k for k in listed(store) if k.startswith(f"c/{job}/")] == before[job]
        fenced.append(job)
        if job == "b":
            raise CleanupUnfinished("a worker does not answer")

    with pytest.raises(CleanupUnfinished):
        sweep([store], rules(), delete=True, fence=fence, cancel=Cancel("test"))
    assert fenced == ["a", "b"]
    assert [k for k in listed(store) if k.startswith("c/b/")] == before["b"]
    assert [k for k in listed(store) if k.startswith("c/c/")] == before["c"]


# -- the command -----------------------------------------------------------------------------


def audited(*arguments: object, code: int) -> str:
    command = typer.Typer()
    command.command()(run_audit)
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


def as_json(*arguments: object, code: int) -> Any:
    return json.loads(audited(*arguments, "--json", code=code))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--store", "nowhere://x", "--cluster", "c"], "no store has this scheme"),
        (["--store", "file:///tmp/x", "--cluster", "a/b"], "cluster"),
        (["--store", "file:///tmp/x", "--cluster", "c", "--live", "a b"], "job"),
        (["--store", "file:///tmp/x", "--cluster", "c", "--delete"], "--live ''"),
        (["--store", "file:///tmp/x", "--cluster", "c", "--kube", "--live", ""], "leave one out"),
        (["--store", "file:///tmp/x", "--cluster", "c", "--workers", "nobody"], "nobody"),
        (["--store", "file:///tmp/x", "--cluster", "c", "--no-process-jobs"], "with --kube"),
        (["--store", "file:///tmp/x", "--cluster", "c", "--store-option", "x"], "NAME=VALUE"),
        (["--store", "file:///tmp/x", "--cluster", "c", "--grace-seconds", "-1"], "Invalid value"),
        (["--cluster", "c"], "--store"),
        (["--store", "file:///tmp/x"], "--cluster"),
        (
            ["--store", "s3://b/p", "--cluster", "c", "--live", "", "--store-option",
             "endpoint_url=http://127.0.0.1:9", "--store-option", "deadline_seconds=0.2",
             "--store-option", "region=x"],
            "127.0.0.1:9",
        ),
    ],
)  # fmt: skip
def test_bad_input_ends_with_two(arguments: list[str], said: str) -> None:
    assert said in " ".join(audited(*arguments, code=2).split())


def test_the_command_finds_and_deletes(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    given = ("--store", tmp_path.as_uri(), "--cluster", "c", "--grace-seconds", 0)
    assert "clean" in audited(*given, "--live", "", code=0)
    dead = put_job(store, "dead", intent=True)
    live = put_job(store, "live")
    time.sleep(0.05)  # the coarse clock of files
    assert "not known" in audited(*given, code=2)
    said = audited(*given, "--live", "live", code=1)
    assert "orphans exist" in said
    assert "dead" in said
    found = as_json(*given, "--live", "live", code=1)
    assert (found["orphans"], found["left"]["orphan"]["objects"]) == (True, len(dead))
    assert [job["job"] for job in found["jobs"]] == ["dead"]
    deleted = as_json(*given, "--live", "live", "--delete", code=0)
    assert deleted["deleted"]["objects"] == len(dead)
    assert listed(store) == live
    assert as_json(*given, "--live", "", "--delete", code=0)["deleted"]["objects"] == len(live)
    assert not listed(store)


@pytest.fixture
def worker(
    start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> WorkerProcess:
    found = start_worker(key=KEY, store=(tmp_path / "store").as_uri(), cluster="c")
    monkeypatch.setenv("CROSSDOCK_TOKEN", found.admin_token())
    return found


def register(worker: WorkerProcess, job: str, *, owner: str = "runner") -> None:
    body = json.dumps({"owner": owner}).encode()
    answer = worker.request("PUT", f"/v1/jobs/{job}", body=body, token=worker.admin_token())
    assert answer.status == 201


def test_workers_say_which_jobs_live(worker: WorkerProcess, tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    register(worker, "live")
    put_job(store, "live")
    dead = put_job(store, "dead")
    given = ("--store", store.url, "--cluster", "c", "--workers", worker.url)
    assert "not known" in audited(*given, code=2)  # it has just begun
    given = (*given, "--grace-seconds", 0)
    assert "not known" in audited(*given, code=2), "its disk may be new all the same"
    given = (*given, "--grace-seconds", 0.1, "--least-uptime-seconds", 0.1)
    eventually(lambda: worker.get_json("/v1/jobs")["uptime_seconds"] > 1)
    found = as_json(*given, code=1)
    assert [job["job"] for job in found["jobs"]] == ["dead"]
    assert "to be told which jobs live" in audited(*given, "--delete", code=2)
    found = as_json(*given, "--live", "live", "--delete", code=0)
    assert found["deleted"]["objects"] == len(dead)
    assert [(d["job"], d["verdict"]) for d in found["disks"]] == [("live", "live")]
    assert all("/live/" in key for key in listed(store))
    answer = worker.request("GET", "/v1/jobs/dead", token=worker.admin_token())
    assert answer.code == "job_fenced"


def test_who_else_knows_of_live_jobs_knows_none_of_processes(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    """As Kubernetes does: processes have told the workers of their jobs, and nobody else."""
    store = open_store((tmp_path / "store").as_uri())
    register(worker, "process")
    register(worker, "ended", owner="cluster")
    for job in ("process", "listed"):
        put_job(store, job)
    dead = put_job(store, "dead")
    eventually(lambda: worker.get_json("/v1/jobs")["jobs"][0]["age_seconds"] > 1)
    asked = []

    def listed_jobs(cluster: str) -> frozenset[str]:
        asked.append(cluster)
        return frozenset({"listed"})

    options = AuditOptions(
        cluster="c", grace_seconds=0.1, least_uptime_seconds=0.1, ask_live=listed_jobs, delete=True
    )
    with pytest.raises(ConfigError, match="only the workers know"):
        audit([store], None, options)
    assert len(listed(store)) == 3 * len(dead)
    asked.clear()
    with connect([worker.url]) as cluster:
        found = audit([store], Fleet(cluster, "c"), options)
    assert asked == ["c"]
    assert found.deleted.objects == len(dead)
    assert {d.job: v for d, v in found.disks} == {
        "process": Verdict.LIVE, "ended": Verdict.ORPHAN,
    }  # fmt: skip
    with connect([worker.url]) as cluster, pytest.raises(ConfigError, match="just begun"):
        audit([store], Fleet(cluster, "c"), replace(options, grace_seconds=1e6))
    audit([store], None, replace(options, has_processes=False))
    assert {key.split("/")[1] for key in listed(store)} == {"listed"}


def damage(worker: WorkerProcess, job: str) -> None:
    """Have a worker start on a disk with a record that does not read."""
    worker.kill9()
    (worker.data_dir / "jobs" / job / "job.json").write_text("{")
    worker.start()


def test_a_damaged_job_lives_for_nobody_and_goes_by_a_list(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    """Whose it was is not known, so workers alone do not say that it is over."""
    store = open_store((tmp_path / "store").as_uri())
    for job in ("damaged", "live"):
        register(worker, job)
        put_job(store, job)
    damage(worker, "damaged")
    given = (
        "--store", store.url, "--cluster", "c", "--workers", worker.url,
        "--grace-seconds", 0.1, "--least-uptime-seconds", 0.1,
    )  # fmt: skip
    eventually(lambda: worker.get_json("/v1/jobs")["uptime_seconds"] > 1)
    found = as_json(*given, code=2)
    assert {d["job"]: (d["verdict"], d["damaged"]) for d in found["disks"]} == {
        "damaged": ("unknown", True), "live": ("live", False),
    }  # fmt: skip
    assert [(j["job"], j["verdict"]) for j in found["jobs"]] == [("damaged", "unknown")]
    assert "unknown, damaged" in audited(*given, code=2)
    kept = as_json(*given, "--live", "live,damaged", "--delete", code=0)
    assert kept["deleted"]["objects"] == 0
    gone = as_json(*given, "--live", "live", "--delete", code=0)
    assert [d["job"] for d in gone["disks"] if d["deleted"]] == ["damaged"]
    assert {key.split("/")[1] for key in listed(store)} == {"live"}
    assert not (worker.data_dir / "jobs" / "damaged").exists()


def test_a_job_that_is_sound_at_another_worker_lives(
    worker: WorkerProcess, start_worker: StartWorker, tmp_path: Path
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    other = start_worker(key=KEY, peers=worker.url, peers_interval_seconds=0.1, cluster="c")
    register(worker, "job")
    eventually(lambda: other.get_json("/v1/jobs")["jobs"], what="its peer's job")
    put_job(store, "job")
    damage(worker, "job")
    eventually(lambda: len(other.get_json("/v1/workers")["workers"]) == 2)
    eventually(lambda: min(w.get_json("/v1/jobs")["uptime_seconds"] for w in (worker, other)) > 1)
    found = as_json(
        "--store", store.url, "--cluster", "c", "--workers", f"{worker.url},{other.url}",
        "--grace-seconds", 0.1, "--least-uptime-seconds", 0.1, code=0,
    )  # fmt: skip
    assert {d["verdict"] for d in found["disks"]} == {"live"}


def test_what_is_on_a_disk_goes_too(worker: WorkerProcess, tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    register(worker, "dead")
    register(worker, "live")
    given = ("--store", store.url, "--cluster", "c", "--workers", worker.url, "--live", "live")
    young = as_json(*given, "--delete", code=0)
    assert {d["job"]: d["verdict"] for d in young["disks"]} == {"dead": "young", "live": "live"}
    given = (*given, "--grace-seconds", 0.1)
    eventually(lambda: worker.get_json("/v1/jobs")["jobs"][0]["age_seconds"] > 1)
    assert "orphans exist" in audited(*given, code=1)
    found = as_json(*given, "--delete", code=0)
    assert [d["job"] for d in found["disks"] if d["deleted"]] == ["dead"]
    assert [j["uid"] for j in worker.get_json("/v1/jobs")["jobs"]] == ["live"]


def test_a_worker_that_does_not_answer_leaves_the_question_open(
    worker: WorkerProcess, start_worker: StartWorker, tmp_path: Path
) -> None:
    other = start_worker(key=KEY, peers=worker.url, peers_interval_seconds=0.1, cluster="c")
    eventually(lambda: len(other.get_json("/v1/workers")["workers"]) == 2)
    store = open_store((tmp_path / "store").as_uri())
    keys = put_job(store, "dead")
    other_url = other.url
    given = ("--store", store.url, "--cluster", "c", "--grace-seconds", 0)
    both = (*given, "--workers", f"{worker.url},{other_url}")
    other.kill9()
    assert other_url in audited(*both, code=2)
    assert "do not answer" in audited(*both, "--live", "", "--delete", code=2)
    assert listed(store) == keys


def test_workers_of_another_cluster_say_nothing_of_this_one(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    keys = put_job(store, "dead")
    given = ("--store", store.url, "--cluster", "prod", "--grace-seconds", 0)
    said = audited(*given, "--workers", worker.url, "--live", "", "--delete", code=2)
    assert "is of cluster 'c', not 'prod'" in " ".join(said.split())
    assert listed(store) == keys
