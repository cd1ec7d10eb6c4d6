"""Jobs: register, renew, take over, fence, delete; names and bodies that are not good."""

import json
import secrets

import pytest

from harness import WorkerProcess
from raw import Peer, Reply, Target


def check_error(reply: Reply, status: int, code: str) -> None:
    assert (reply.status, reply.code) == (status, code), reply
    assert set(reply.json()) >= {"code", "message", "hint"}


def test_registering_creates_and_then_renews(peer: Peer) -> None:
    uid = f"conformance-{secrets.token_hex(8)}"
    target = Target(peer, uid)
    record = {"owner": "driver", "lease_seconds": 5, "grace_seconds": 7, "epoch": 3}
    first = target.register(**record)
    assert first.status == 201
    assert first.json()["uid"] == uid
    assert first.json()["record"].items() >= record.items()
    assert target.register(**record).status == 200
    shown = peer.ask("GET", target.job_path)
    assert shown.status == 200
    assert shown.json()["record"].items() >= record.items()
    assert shown.json()["silent_seconds"] < 60
    assert peer.ask("DELETE", f"{target.job_path}?epoch=3").status == 200


def test_jobs_are_listed_while_they_have_files(target: Target) -> None:
    uid = target.job_path.rpartition("/")[2]

    def listed() -> dict[str, object] | None:
        answer = target.peer.ask("GET", "/v1/jobs").json()
        assert answer["uptime_seconds"] > 0
        assert answer["worker"]
        return next((job for job in answer["jobs"] if job["uid"] == uid), None)

    job = listed()
    assert job is not None
    assert (job["fenced"], job["disk_bytes"]) == (False, 0)
    assert isinstance(job["age_seconds"], float)
    deleted = target.peer.ask("DELETE", target.job_path).json()
    assert deleted["stored"] is False
    assert listed() is None
    assert target.peer.ask("DELETE", target.job_path).json()["stored"] in {False, None}


def test_a_lower_epoch_is_refused_and_changes_nothing(target: Target) -> None:
    assert target.register(epoch=4).status == 200
    check_error(target.register(epoch=3), 409, "stale_epoch")
    fence = target.peer.ask("POST", f"{target.job_path}/fence?epoch=3")
    check_error(fence, 409, "stale_epoch")
    check_error(target.peer.ask("DELETE", f"{target.job_path}?epoch=3"), 409, "stale_epoch")
    shown = target.peer.ask("GET", target.job_path)
    assert shown.status == 200
    assert shown.json()["record"]["epoch"] == 4
    assert target.push(target.frame(epoch=4)).status == 200


def test_homes_are_those_of_the_first_registration(peer: Peer, target: Target) -> None:
    other = Target(peer, f"{target.job}-homes")
    assert other.register(homes=["a", "b"]).json()["record"]["homes"] == ["a", "b"]
    assert other.register(homes=["c"]).json()["record"]["homes"] == ["a", "b"]
    peer.ask("DELETE", other.job_path)


def test_a_fenced_job_takes_and_serves_nothing(target: Target) -> None:
    peer = target.peer
    assert target.push(target.frame()).status == 200
    frames = target.frames()
    path, reply = target.register_places(target.keys(frames))
    assert reply.status == 200
    for _ in range(2):  # idempotent
        assert peer.ask("POST", f"{target.job_path}/fence").status == 200
    check_error(target.push(target.frame(map_id=1)), 410, "job_fenced")
    check_error(target.push(target.frame(map_id=1), expect=False), 410, "job_fenced")
    check_error(target.register(epoch=99), 410, "job_fenced")
    for method, url in (
        ("GET", target.job_path),
        ("POST", f"{target.path}/frames/list"),
        ("GET", f"{path}/blocks"),
        ("GET", f"{path}/sizes?partitions=0-1"),
        ("POST", f"{target.path}/blocks"),
        ("GET", f"{target.path}/seal"),
        ("DELETE", target.path),
    ):
        check_error(peer.ask(method, url), 410, "job_fenced")


def test_a_deleted_job_frees_its_bytes_and_stays_dead(target: Target) -> None:
    peer = target.peer
    assert target.push(target.frame([(1, b"x" * 10_000, 1)])).status == 200
    first = peer.ask("DELETE", target.job_path)
    assert first.status == 200
    assert first.json()["freed_bytes"] >= 10_000
    again = peer.ask("DELETE", target.job_path)
    assert (again.status, again.json()["freed_bytes"]) == (200, 0)
    check_error(target.register(epoch=2**32 - 1), 410, "job_fenced")
    check_error(target.push(target.frame()), 410, "job_fenced")


def test_deleting_a_job_that_never_was_leaves_a_tombstone(peer: Peer) -> None:
    target = Target(peer, f"conformance-{secrets.token_hex(8)}")
    assert peer.ask("DELETE", target.job_path).status == 200
    check_error(target.register(), 410, "job_fenced")


def test_tombstones_releases_and_records_survive_kill_9(own_worker: WorkerProcess) -> None:
    peer = Peer(own_worker.url, own_worker.admin_token())
    dead, fenced, live = (Target(peer, name) for name in ("dead", "fenced", "live"))
    for target in (dead, fenced, live):
        assert target.register(epoch=5).status == 201
    assert live.push(live.frame(epoch=5)).status == 200
    assert peer.ask("DELETE", f"{dead.job_path}?epoch=5").status == 200
    assert peer.ask("POST", f"{fenced.job_path}/fence?epoch=5").status == 200
    assert peer.ask("DELETE", live.path).status == 200
    own_worker.restart()
    for target in (dead, fenced):
        check_error(target.register(epoch=9), 410, "job_fenced")
    check_error(live.register(epoch=4), 409, "stale_epoch")
    check_error(live.push(live.frame(epoch=5)), 410, "shuffle_released")


def test_a_word_names_all_that_a_long_job_has_released(target: Target) -> None:
    released = {f"shuffle-of-a-long-job-{n:05}": n for n in range(10_000)}
    assert target.register(released=released).status in {200, 201}
    told = target.peer.ask("GET", "/v1/facts").json()["jobs"]
    [facts] = [job for job in told if job["uid"] == target.job]
    assert facts["released"] == released


def test_releases_of_many_jobs_are_told_at_once(target: Target) -> None:
    peer, unknown = target.peer, f"{target.job}-unknown"
    ended = Target(peer, f"{target.job}-ended")
    ended.register()
    assert peer.ask("DELETE", ended.job_path).status == 200
    assert target.push(target.frame()).status == 200

    def tell(jobs: object, *, cleared: bool) -> Reply:
        body = json.dumps({"jobs": jobs, "cleared": cleared}).encode()
        return peer.ask("POST", "/v1/released", body)

    jobs = {uid: {"words": 9} for uid in (target.job, unknown, ended.job)}
    for cleared in (False, False, True):
        answer = tell(jobs, cleared=cleared)
        assert answer.status == 200, answer
        assert answer.json()["left_out"] == [unknown]
        assert answer.json()["worker"]
    check_error(target.push(target.frame(map_id=1)), 410, "shuffle_released")
    told = peer.ask("GET", "/v1/facts").json()["jobs"]
    [facts] = [job for job in told if job["uid"] == target.job]
    assert (facts["released"], facts["cleared"]) == ({"words": 9}, {"words": 9})
    for bad in ([], {"a b": {"words": 1}}, {target.job: {"words": -1}}, {target.job: 1}):
        check_error(tell(bad, cleared=False), 400, "protocol")


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_calls_of_unknown_jobs_and_shuffles_say_so(target: Target, method: str) -> None:
    peer, unknown = target.peer, Target(target.peer, f"{target.job}-unknown")
    calls = {
        "GET": (f"{unknown.path}/seal", f"{unknown.path}/places/{'0' * 64}/blocks"),
        "PUT": (f"{unknown.path}/frames", f"{unknown.path}/places/{'0' * 64}"),
        "POST": (f"{unknown.path}/frames/list", f"{unknown.path}/blocks"),
        "DELETE": (f"{unknown.path}/attempts/0/0", unknown.path),
    }
    for path in calls[method]:
        check_error(peer.ask(method, path), 404, "job_unknown")
    for path in calls[method]:
        known = path.replace(unknown.job, target.job)
        if known.endswith(("/seal", "/frames", target.path)):
            continue  # these make sense before the first frame
        check_error(peer.ask(method, known), 404, "shuffle_unknown")
    check_error(peer.ask("GET", unknown.job_path), 404, "job_unknown")


BAD_NAMES = [
    "..", "%2e%2e", "%2E%2E", "%2e", ".hidden", "-x", "_x", "a%2Fb", "a%2f..%2fb", "%2e%2e%2fx",
    "a" * 129, "a%00b", "a%0ab", "%20", "a%20b", "%C3%A9", "a%5Cb", "a:b", "*", "%25", "a%",
    "%ff",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused(target: Target, name: str) -> None:
    peer = target.peer
    body = json.dumps({"owner": "cluster"}).encode()
    assert 400 <= peer.ask("PUT", f"/v1/jobs/{name}", body).status < 500
    frame = target.frame()
    for path in (
        f"/v1/jobs/{name}/shuffles/words/0/frames",
        f"/v1/jobs/{target.job}/shuffles/{name}/0/frames",
    ):
        for expect in (False, True):
            assert 400 <= peer.ask("PUT", path, frame, expect=expect).status < 500
    seal = f"/v1/jobs/{target.job}/shuffles/{name}/0/seal"
    assert 400 <= peer.ask("PUT", seal, b"").status < 500
    assert target.disk_bytes() == 0


@pytest.mark.parametrize("generation", ["-1", "x", "4294967296", "1.0", "%31x", "0x1", "", "٣"])
def test_bad_generations_are_refused(target: Target, generation: str) -> None:
    path = f"{target.job_path}/shuffles/words/{generation}/frames".encode().decode("latin-1")
    for expect in (False, True):
        assert 400 <= target.peer.ask("PUT", path, target.frame(), expect=expect).status < 500
    assert target.disk_bytes() == 0


BAD_RECORDS = [
    b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"{}", b'{"owner": "nobody"}',
    b'{"owner": null}', b'{"owner": ["runner"]}', b'{"owner": {"a": 1}}',
    b'{"owner": "runner", "colour": 1}',
    b'{"owner": "runner", "lease_seconds": -1}', b'{"owner": "runner", "lease_seconds": "5"}',
    b'{"owner": "runner", "lease_seconds": NaN}', b'{"owner": "runner", "lease_seconds": Infinity}',
    b'{"owner": "runner", "epoch": -1}', b'{"owner": "runner", "epoch": true}',
    b'{"owner": "runner", "epoch": 1e30}', b'{"owner": "runner", "epoch": 1.5}',
    b'{"owner": "runner", "homes": "abc"}', b'{"owner": "runner", "homes": [1]}',
    b'{"owner": "runner", "quota_bytes": -5}', b'{"owner": "runner", "quota_bytes": "1"}',
    b'{"owner": "runner", "epoch": ' + b"9" * 5000 + b"}",
    b"[" * 60_000, b'{"owner": ' * 6_000,
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_RECORDS, ids=lambda b: repr(b[:40]))
def test_bad_records_are_refused(peer: Peer, body: bytes) -> None:
    uid = f"conformance-{secrets.token_hex(8)}"
    check_error(peer.ask("PUT", f"/v1/jobs/{uid}", body), 400, "protocol")
    check_error(peer.ask("GET", f"/v1/jobs/{uid}"), 404, "job_unknown")


def test_unknown_paths_and_methods_are_json_errors(peer: Peer) -> None:
    check_error(peer.ask("GET", "/v2/jobs"), 404, "http")
    reply = peer.ask("PATCH", "/v1/jobs/abc", b"")
    check_error(reply, 405, "http")
    assert "PUT" in reply.headers["allow"]
