"""Tenants are apart: every route is behind a token, and a token opens one job alone."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import psutil
import pytest

import crossdock
from crossdock.wire.tokens import ANY_JOB, JOB_RIGHTS, Right
from crossdock_worker.routes import ROUTES, Route
from crossdock_worker.server import make_app
from crossdock_worker.settings import Settings
from crossdock_worker.worker import Worker
from harness import COMMAND, KEY, QUICK, Answer, StartWorker, WorkerProcess, eventually

OTHER_KEY = b"another key, of another cluster, 0123456789abcdef"

_SHUFFLE = "/v1/jobs/{job}/shuffles/{shuffle}/{generation}"
RIGHTS = {
    "GET /healthz": None,
    "GET /readyz": None,
    "GET /metrics": "metrics",
    "GET /v1/workers": "read",
    "GET /v1/facts": "read",
    "POST /v1/workers/{worker}/gone": "admin",
    "POST /v1/drain": "admin",
    "GET /v1/drain": "admin",
    "GET /v1/jobs": "admin",
    "POST /v1/released": "admin",
    "PUT /v1/jobs/{job}": "write",
    "GET /v1/jobs/{job}": "read",
    "PUT /v1/jobs/{job}/demand": "write",
    "POST /v1/jobs/{job}/fence": "own",
    "DELETE /v1/jobs/{job}": "own",
    f"PUT {_SHUFFLE}/frames": "write",
    f"POST {_SHUFFLE}/frames/list": "read",
    f"DELETE {_SHUFFLE}/attempts/{{map}}/{{attempt}}": "write",
    f"DELETE {_SHUFFLE}": "own",
    f"PUT {_SHUFFLE}/seal": "write",
    f"GET {_SHUFFLE}/seal": "read",
    f"PUT {_SHUFFLE}/places/{{digest}}": "read",
    f"GET {_SHUFFLE}/places/{{digest}}/blocks": "read",
    f"GET {_SHUFFLE}/places/{{digest}}/sizes": "read",
    f"POST {_SHUFFLE}/blocks": "read",
    f"POST {_SHUFFLE}/views": "read",
    f"POST {_SHUFFLE}/persist": "own",
    f"GET {_SHUFFLE}/runs/{{run}}": "read",
    f"PUT {_SHUFFLE}/views/{{view}}/manifest": "own",
    f"GET {_SHUFFLE}/objects": "read",
    f"GET {_SHUFFLE}/objects/{{key}}": "read",
}
"""What each call needs, written down apart from the code: a new call is to be added here."""

ENOUGH = {
    "read": {"read", "write", "own", "admin"},
    "write": {"write", "own", "admin"},
    "own": {"own", "admin"},
    "metrics": {"metrics", "admin"},
    "admin": {"admin"},
}

guarded = pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.right is not None], ids=lambda r: f"{r.method} {r.template}"
)
of_jobs = pytest.mark.parametrize(
    "route", [r for r in ROUTES if "{job}" in r.path], ids=lambda r: f"{r.method} {r.template}"
)


def url(route: Route, job: str) -> str:
    values = {
        "job": job, "shuffle": "words", "generation": "0", "map": "0", "attempt": "0",
        "digest": "0" * 64, "worker": "no-such-worker",
        "run": "no-such-run", "view": "0" * 64, "key": "no-such-key",
    }  # fmt: skip
    return re.sub(r"{(\w+)}", lambda m: values[m[1]], route.template)


def ask(worker: WorkerProcess, route: Route, job: str, token: str | None, **headers: str) -> Answer:
    body = b"" if route.method in {"PUT", "POST"} else None
    return worker.request(route.method, url(route, job), body=body, token=token, headers=headers)


@pytest.fixture(scope="module")
def existing(_session_secure_worker: WorkerProcess) -> Iterator[str]:
    """A job that is there, with a shuffle, a frame and a seal."""
    with _session_secure_worker.connect() as cluster:
        job = cluster.job("tenant", owner="runner")
        shuffle = job.shuffle("words", partitions=2, maps=1)
        with shuffle.writer(map_id=0, attempt=0) as writer:
            writer.write(0, b"secret")
        shuffle.view()
        yield job.uid
        job.end()


def check_intact(worker: WorkerProcess, job: str) -> None:
    described = worker.get_json(f"/v1/jobs/{job}")
    assert [s["frames"] for s in described["shuffles"]] == [1]


def test_the_table_of_rights_is_complete() -> None:
    found = {f"{r.method} {r.template}": r.right for r in ROUTES}
    assert found == RIGHTS


async def test_the_worker_has_no_route_beside_the_table(tmp_path: Path) -> None:
    worker = Worker(Settings(data_dir=tmp_path / "data", insecure=True))
    try:
        routes = make_app(worker).router.routes()
        found = [(r.method, r.resource.canonical if r.resource else "") for r in routes]
        assert sorted(found) == sorted((r.method, r.template) for r in ROUTES)
    finally:
        await worker.close()


@guarded
def test_without_a_good_token_nothing_opens(
    secure_worker: WorkerProcess, existing: str, route: Route
) -> None:
    now = int(time.time())
    whole = {"sub": existing, "rights": ["admin"], "exp": now + 1000}
    unsigned = jwt.encode(whole, "", "none")
    bad = {
        "garbage": "garbage",
        "three parts": "a.b.c",
        "expired": secure_worker.token(existing, [Right.ADMIN], ttl_seconds=-1),
        "another cluster's": secure_worker.token(existing, [Right.ADMIN], key=OTHER_KEY),
        "unsigned": unsigned,
        "signature of none": f"{unsigned}{secure_worker.admin_token().split('.')[2]}",
        "cut": secure_worker.admin_token()[:-4],
        "without expiry": jwt.encode({"sub": existing, "rights": ["admin"]}, KEY, "HS256"),
        "without rights": jwt.encode({"sub": existing, "exp": now + 1000}, KEY, "HS256"),
        "without job": jwt.encode({"rights": ["admin"], "exp": now + 1000}, KEY, "HS256"),
        "rights of one string": jwt.encode({**whole, "rights": "admin"}, KEY, "HS256"),
        "another algorithm": jwt.encode(whole, KEY * 2, "HS512"),
    }
    for kind, token in bad.items():
        answer = ask(secure_worker, route, existing, token)
        assert (answer.status, answer.code) == (401, "unauthenticated"), kind
        assert answer.headers["www-authenticate"] == "Bearer"
    for header in ("", "Bearer", "Bearer ", f"Basic {secure_worker.admin_token()}",
                   secure_worker.admin_token()):  # fmt: skip
        answer = ask(secure_worker, route, existing, None, Authorization=header)
        assert (answer.status, answer.code) == (401, "unauthenticated"), header
    assert ask(secure_worker, route, existing, None).status == 401
    check_intact(secure_worker, existing)


@of_jobs
def test_a_foreign_token_learns_nothing(
    secure_worker: WorkerProcess, existing: str, route: Route
) -> None:
    foreign = [
        secure_worker.token("another", JOB_RIGHTS),
        secure_worker.token(ANY_JOB, JOB_RIGHTS),  # only an administrator is of every job
        secure_worker.token("", JOB_RIGHTS),
        secure_worker.token(existing.upper(), JOB_RIGHTS),
        secure_worker.token(existing[:-1], JOB_RIGHTS),
    ]
    for token in foreign:
        answers = [ask(secure_worker, route, job, token) for job in (existing, "no-such-job")]
        assert [a.status for a in answers] == [403, 403]
        assert answers[0].body == answers[1].body
        assert existing not in answers[0].body.decode()
    check_intact(secure_worker, existing)


@guarded
@pytest.mark.parametrize("right", list(Right))
def test_each_right_opens_what_it_should(
    secure_worker: WorkerProcess, start_worker: StartWorker, route: Route, right: Right
) -> None:
    # Never registered: a call that is let in finds nothing. What tells of all jobs is for no job's.
    job = ANY_JOB if route.path == "/v1/facts" else "rights"
    worker = start_worker(key=KEY) if route.path == "/v1/drain" else secure_worker
    answer = ask(worker, route, job, worker.token(job, [right]))
    if right in ENOUGH[RIGHTS[f"{route.method} {route.template}"]]:
        assert answer.status not in {401, 403}, answer
    else:
        assert (answer.status, answer.code) == (403, "forbidden")
    answer = ask(secure_worker, route, job, secure_worker.token(job, []))
    assert (answer.status, answer.code) == (403, "forbidden")
    secure_worker.request("DELETE", "/v1/jobs/rights", token=None)


def test_a_metrics_token_opens_metrics_and_nothing_else(secure_worker: WorkerProcess) -> None:
    token = secure_worker.token(ANY_JOB, [Right.METRICS])
    for route in ROUTES:
        answer = ask(secure_worker, route, "tenant", token)
        if route.path == "/metrics":
            assert answer.status == 200
            assert b"crossdock_frames_total" in answer.body
        elif route.right is not None:
            assert answer.status == 403, route.path
        else:
            assert answer.status == 200


def test_health_needs_no_token_and_tells_nothing(secure_worker: WorkerProcess) -> None:
    assert secure_worker.request("GET", "/healthz").json() == {"status": "ok"}
    assert secure_worker.request("GET", "/readyz").json() == {"state": "serving"}


def test_a_writer_introduces_its_job_and_cannot_take_it_over(
    secure_worker: WorkerProcess,
) -> None:
    token = secure_worker.token("introduced", [Right.WRITE])
    path = "/v1/jobs/introduced"

    def put(record: str, token: str) -> Answer:
        return secure_worker.request("PUT", path, body=record.encode(), token=token)

    assert put('{"owner": "runner", "epoch": 3}', token).status == 201
    answer = put('{"owner": "driver", "epoch": 9}', token)
    assert answer.json()["record"]["epoch"] == 3
    owner = secure_worker.token("introduced", [Right.OWN])
    assert put('{"owner": "driver", "epoch": 9}', owner).json()["record"]["epoch"] == 9
    assert secure_worker.request("DELETE", f"{path}?epoch=9", token=owner).status == 200


def test_a_writer_cannot_keep_a_job_from_its_owner(secure_worker: WorkerProcess) -> None:
    path = "/v1/jobs/taken"

    def put(record: str, right: Right) -> Answer:
        token = secure_worker.token("taken", [right])
        return secure_worker.request("PUT", path, body=record.encode(), token=token)

    bad = '{"owner": "driver", "epoch": 9223372036854775808, "homes": ["none"]}'
    assert put(bad, Right.WRITE).json()["introduced"] is True
    answer = put('{"owner": "runner", "epoch": 0, "homes": ["here"]}', Right.OWN)
    assert answer.status == 200
    assert (answer.json()["record"]["epoch"], answer.json()["record"]["homes"]) == (0, ["here"])
    answer = put(bad, Right.WRITE)
    assert (answer.json()["record"]["epoch"], answer.json()["introduced"]) == (0, False)
    owner = secure_worker.token("taken", [Right.OWN])
    assert secure_worker.request("DELETE", f"{path}?epoch=0", token=owner).status == 200


# -- the client ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda _: "", crossdock.Unauthenticated),
        (lambda _: "garbage", crossdock.Unauthenticated),
        (lambda w: w.token("mine", ttl_seconds=-1), crossdock.Unauthenticated),
        (lambda w: w.token("mine", key=OTHER_KEY), crossdock.Unauthenticated),
        (lambda w: w.token("other"), crossdock.Forbidden),
        (lambda w: w.token("mine", [Right.METRICS]), crossdock.Forbidden),
    ],
    ids=["none", "garbage", "expired", "another key", "another job", "another right"],
)
def test_the_client_raises_what_is_wrong_at_once(
    secure_worker: WorkerProcess,
    make: Callable[[WorkerProcess], str],
    error: type[crossdock.CrossdockError],
) -> None:
    started = time.monotonic()
    with crossdock.connect([secure_worker.url], token=make(secure_worker), options=QUICK) as c:
        with pytest.raises(error) as caught:
            c.job("mine", owner="runner")
        assert isinstance(caught.value, crossdock.AccessError)
    assert time.monotonic() - started < 5  # no retries


def test_reading_needs_no_more_than_its_right(secure_worker: WorkerProcess, existing: str) -> None:
    token = secure_worker.token(existing, [Right.READ])
    with secure_worker.connect(token=token) as cluster:
        shuffle = cluster.job(existing).shuffle("words", partitions=2, maps=1)
        assert [bytes(b.data) for b in shuffle.view({0: 0}).read()] == [b"secret"]
        with pytest.raises(crossdock.Forbidden), shuffle.writer(map_id=1) as writer:
            writer.write(0, b"no")
    check_intact(secure_worker, existing)


def test_a_token_file_is_read_again_when_it_changes(
    secure_worker: WorkerProcess, existing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    monkeypatch.setenv("CROSSDOCK_TOKEN_FILE", str(path))
    monkeypatch.delenv("CROSSDOCK_TOKEN", raising=False)
    with pytest.raises(crossdock.ConfigError, match="token"):  # noqa: SIM117
        with crossdock.connect([secure_worker.url], options=QUICK) as cluster:
            cluster.job(existing)
    path.write_text(secure_worker.token(existing) + "\n")
    with crossdock.connect([secure_worker.url], options=QUICK) as cluster:
        shuffle = cluster.job(existing).shuffle("words", partitions=2, maps=1)
        assert shuffle.view({0: 0}).bytes.tolist() == [6, 0]
        path.write_text(secure_worker.token(existing, ttl_seconds=-5))
        with pytest.raises(crossdock.Unauthenticated, match="expired"):
            shuffle.view({0: 0})
        fresh = tmp_path / "fresh"
        fresh.write_text(secure_worker.token(existing))
        fresh.replace(path)  # as Kubernetes swaps a Secret
        assert shuffle.view({0: 0}).bytes.tolist() == [6, 0]
        path.unlink()  # the last good token holds meanwhile
        assert shuffle.view({0: 0}).bytes.tolist() == [6, 0]


# -- keys ----------------------------------------------------------------------------------


def test_keys_rotate_without_a_restart(start_worker: StartWorker) -> None:
    worker = start_worker(key=KEY)

    def status(key: bytes) -> int:
        token = worker.token(ANY_JOB, [Right.ADMIN], key=key)
        return worker.request("GET", "/v1/workers", token=token).status

    def write(*keys: bytes) -> None:
        fresh = worker.directory / "fresh.key"
        fresh.write_bytes(b"\n".join(keys) + b"\n")
        fresh.replace(worker.key_file)

    assert (status(KEY), status(OTHER_KEY)) == (200, 401)
    write(KEY, OTHER_KEY)  # first it verifies everywhere,
    assert (status(KEY), status(OTHER_KEY)) == (200, 200)
    write(OTHER_KEY, KEY)  # then it signs,
    assert (status(KEY), status(OTHER_KEY)) == (200, 200)
    write(OTHER_KEY)  # then the old one goes
    assert (status(KEY), status(OTHER_KEY)) == (401, 200)
    for broken in (b"", b"short", b"\xff" * 40):
        worker.key_file.write_bytes(broken)  # a slip: nobody is let in or locked out by it
        assert (status(KEY), status(OTHER_KEY)) == (401, 200)
    worker.key_file.unlink()
    assert (status(KEY), status(OTHER_KEY)) == (401, 200)
    write(KEY)
    assert (status(KEY), status(OTHER_KEY)) == (200, 401)


def test_peers_know_each_other_by_the_first_key(start_worker: StartWorker) -> None:
    first = start_worker(key=KEY)
    second = start_worker(key=KEY, peers=first.url)
    eventually(lambda: len(second.get_json("/v1/workers")["workers"]) == 2)


def run(*options: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "worker", "--data-dir", tmp_path / "data", "--listen", "127.0.0.1:0", *options],
        capture_output=True, text=True, timeout=30, check=False, env={**os.environ},
    )  # fmt: skip


def test_a_worker_without_keys_does_not_start(tmp_path: Path) -> None:
    ended = run(tmp_path=tmp_path)
    assert ended.returncode == 2
    assert "--key-file" in ended.stderr
    assert "--insecure-no-auth" in ended.stderr
    assert "crossdock key" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("content", [None, "", "   \n", "too short\n"])
def test_a_worker_with_bad_keys_does_not_start(tmp_path: Path, content: str | None) -> None:
    key_file = tmp_path / "key"
    if content is not None:
        key_file.write_text(content)
    ended = run("--key-file", str(key_file), tmp_path=tmp_path)
    assert ended.returncode == 2
    assert "key" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_both_a_key_and_no_auth_contradict_each_other(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY)
    ended = run("--key-file", str(tmp_path / "key"), "--insecure-no-auth", tmp_path=tmp_path)
    assert ended.returncode == 2


def test_the_command_line_makes_keys_and_tokens(start_worker: StartWorker) -> None:
    made = subprocess.run([COMMAND, "key"], capture_output=True, text=True, check=True)
    worker = start_worker(key=made.stdout.strip().encode())

    def token(*options: str) -> str:
        command = [COMMAND, "token", "--key-file", worker.key_file, *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    mine = token("--job", "mine", "--rights", "read")
    assert worker.request("GET", "/v1/jobs/mine", token=mine).status == 404
    assert worker.request("GET", "/v1/jobs/other", token=mine).status == 403
    scraper = token("--rights", "metrics")
    assert worker.request("GET", "/metrics", token=scraper).status == 200
    assert worker.request("GET", "/v1/workers", token=scraper).status == 403


def test_keys_are_in_no_log_and_on_no_command_line(start_worker: StartWorker) -> None:
    worker = start_worker(key=KEY, log_level="debug")
    token = worker.admin_token()
    assert worker.request("GET", "/v1/workers", token=token).status == 200
    assert worker.request("GET", "/v1/workers", token=token[:-3]).status == 401
    shown = worker.log_text() + " ".join(psutil.Process(worker.pid).cmdline())
    assert KEY.decode() not in shown
    assert token[:-3] not in shown
