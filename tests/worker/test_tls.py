"""TLS: the client, plain curl, and what a wrong authority looks like."""

import http.client
import json
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

import crossdock
from certificates import Authority
from crossdock.wire import tokens
from crossdock.wire.tokens import ANY_JOB, Right
from harness import KEY, QUICK, WorkerProcess, eventually, started_workers
from raw import Peer, Target, make_frame

MIB = 2**20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls"), "good")


@pytest.fixture(scope="module")
def tls_worker(authority: Authority) -> Iterator[WorkerProcess]:
    with WorkerProcess(key=KEY, options=authority.options()) as process:
        yield process.start()


def connect(worker: WorkerProcess, ca: Path | None) -> crossdock.Cluster:
    return crossdock.connect([worker.url], token=worker.admin_token(), ca_file=ca, options=QUICK)


def test_the_client_writes_and_reads_over_tls(
    tls_worker: WorkerProcess, authority: Authority
) -> None:
    assert tls_worker.url.startswith("https://")
    with connect(tls_worker, authority.ca) as cluster:
        job = cluster.job("tls", owner="runner")
        shuffle = job.shuffle("words", partitions=4, maps=3)
        for map_id in range(3):
            with shuffle.writer(map_id=map_id, attempt=0) as writer:
                writer.write(0, b"small")
                writer.write(3, bytes([map_id]) * 9 * MIB)
        view = shuffle.view()
        assert view.bytes.tolist() == [15, 0, 0, 27 * MIB]
        found = [(b.partition, b.map_id, bytes(b.data)) for b in view.read()]
        assert found == [
            *((0, m, b"small") for m in range(3)),
            *((3, m, bytes([m]) * 9 * MIB) for m in range(3)),
        ]
        job.end()


def test_workers_know_each_other_over_tls(authority: Authority) -> None:
    with (
        started_workers(2, key=KEY, options=authority.options()) as workers,
        connect(workers[1], authority.ca) as cluster,
    ):
        eventually(lambda: len(cluster.members(fresh=True).reachable) == 2)
        shuffle = cluster.job("tls", owner="runner").shuffle("words", partitions=16, maps=1)
        with shuffle.writer(map_id=0, attempt=0) as writer:
            for partition in range(16):
                writer.write(partition, b"x" * 1000)
        assert len(shuffle.view().places()) == 2


def test_another_authority_is_a_clear_error_at_once(
    tls_worker: WorkerProcess, tmp_path: Path
) -> None:
    other = Authority.make(tmp_path, "other")
    for ca in (other.ca, None):
        with connect(tls_worker, ca) as cluster:
            with pytest.raises(crossdock.ConfigError, match=r"certificate|issuer|CA") as caught:
                cluster.job("tls", owner="runner")
            assert "CROSSDOCK_CA_FILE" in str(caught.value)
            assert tls_worker.url in str(caught.value)


def test_a_name_that_the_certificate_lacks_is_a_clear_error(
    tls_worker: WorkerProcess, authority: Authority
) -> None:
    url = f"https://127.0.0.2:{tls_worker.port}"  # nobody listens there, or nobody of that name
    with crossdock.connect(
        [url], token="x", ca_file=authority.ca,
        options=crossdock.Options(deadline_seconds=1, connect_seconds=1),
    ) as cluster, pytest.raises((crossdock.ConfigError, crossdock.Unavailable)):  # fmt: skip
        cluster.job("tls")


def test_a_missing_authority_is_a_clear_error(tls_worker: WorkerProcess, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    for path in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(crossdock.ConfigError, match=str(path)):
            connect(tls_worker, path)


def test_plain_http_to_a_tls_worker_is_unavailable_not_a_hang(tls_worker: WorkerProcess) -> None:
    options = crossdock.Options(deadline_seconds=1, stall_seconds=5)
    url = f"http://127.0.0.1:{tls_worker.port}"
    with (
        crossdock.connect([url], token="x", options=options) as cluster,
        pytest.raises(crossdock.CrossdockError),
    ):
        cluster.job("tls")
    with socket.create_connection(("127.0.0.1", tls_worker.port), 10) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert not sock.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("given", ["tls_cert", "tls_key"])
def test_half_a_certificate_is_a_clear_error(authority: Authority, given: str) -> None:
    options = {given: authority.options()[given]}
    with WorkerProcess(key=KEY, options=options) as process:
        with pytest.raises(AssertionError, match="ended with 2"):
            process.start()
        assert "--tls-cert and --tls-key go together" in process.log_text()


def test_a_bad_certificate_is_a_clear_error(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("no certificate")
    options = {"tls_cert": tmp_path / "bad", "tls_key": authority.key}
    with WorkerProcess(key=KEY, options=options) as process:
        with pytest.raises(AssertionError, match="ended with 2"):
            process.start()
        assert "--tls-cert" in process.log_text()
        assert "Traceback" not in process.log_text()


# -- bounds --------------------------------------------------------------------------------


@pytest.fixture
def small_worker(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[WorkerProcess, Peer]]:
    """A worker with few connections and little patience."""
    options: dict[str, object] = {"max_connections": 6, "stall_seconds": 3}
    monkeypatch.setenv("CROSSDOCK_CA_FILE", str(authority.ca))
    with WorkerProcess(options=authority.options() | options) as process:
        process.start()
        yield process, Peer(process.url, "")


def test_small_answers_wait_for_their_reader(small_worker: tuple[WorkerProcess, Peer]) -> None:
    worker, peer = small_worker
    target = Target(peer, "tls")
    assert target.register().status == 201
    assert target.push(target.frame([(1, secrets.token_bytes(50_000), 1)])).status == 200
    path, _ = target.register_places(target.keys(target.frames()))
    before, peak = worker.anonymous_bytes, 0
    with peer.line() as line:
        line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.send(line.head("GET", f"{path}/blocks", length=None) * 1000)  # 50 MB of answers
        line.socket.settimeout(0)

        def over() -> bool:
            nonlocal peak
            peak = max(peak, worker.anonymous_bytes)
            with suppress(BlockingIOError, ssl.SSLWantWriteError):
                line.socket.send(b"x")
            return False

        with pytest.raises((ConnectionError, ssl.SSLError)):
            eventually(over, what="the connection is closed")
    assert peak - before < 16 * MIB


def test_handshakes_count_as_connections(small_worker: tuple[WorkerProcess, Peer]) -> None:
    worker, peer = small_worker
    before = worker.sockets
    address = ("127.0.0.1", worker.port)
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(address, 10))
        time.sleep(0.2)
        assert worker.sockets <= before + 6
        with pytest.raises(OSError, match=r".*"):
            peer.ask("GET", "/healthz")
        eventually(lambda: _answers(peer), what="the end of the handshakes")
    eventually(lambda: worker.sockets <= before, what="every socket is closed")


def _answers(peer: Peer) -> bool:
    with suppress(OSError):
        return peer.ask("GET", "/healthz").status == 200
    return False


# -- curl ----------------------------------------------------------------------------------


def curl(*arguments: object) -> str:
    """Run curl; return the answer's body and, on a last line, its status."""
    command = shutil.which("curl")
    assert command, "these tests need curl: apt-get install curl"
    line = [
        command,
        "--silent",
        "--show-error",
        "--max-time",
        "30",
        "--write-out",
        "\n%{http_code}",
    ]
    ended = subprocess.run(
        [*line, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(params=["http", "https"])
def curled(
    request: pytest.FixtureRequest, authority: Authority
) -> tuple[WorkerProcess, list[object]]:
    """A worker and the arguments with which curl reaches it."""
    name = "tls_worker" if request.param == "https" else "secure_worker"
    worker: WorkerProcess = request.getfixturevalue(name)
    more: list[object] = ["--cacert", authority.ca] if request.param == "https" else []
    return worker, [*more, "--header", f"Authorization: Bearer {worker.admin_token()}"]


@pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue", None], ids=str)
@pytest.mark.parametrize("size", [10, 3 * MIB], ids=["small", "large"])
def test_curl_puts_a_frame(
    curled: tuple[WorkerProcess, list[object]], tmp_path: Path, expect: str | None, size: int
) -> None:
    worker, access = curled
    url = f"{worker.url}/v1/jobs/curl-{secrets.token_hex(8)}"
    curl(*access, "--request", "PUT", "--data", '{"owner": "cluster"}', url)
    path = tmp_path / "frame"
    path.write_bytes(make_frame([(1, bytes(range(256)) * (size // 256 + 1), 1)], partitions=2))
    header = [] if expect is None else ["--header", expect]
    put = [*access, *header, "--upload-file", path, f"{url}/shuffles/words/0/frames"]
    for duplicate in ("false", "true"):
        answer = curl(*put)
        assert f'"duplicate": {duplicate}' in answer
        assert answer.endswith("\n200")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    answer = curl(*put)
    assert '"code": "frame"' in answer
    assert answer.endswith("\n400")
    seen = curl(*access, url)
    assert '"frames": 1' in seen
    curl(*access, "--request", "DELETE", url)


def test_many_files_on_one_curl_connection(
    curled: tuple[WorkerProcess, list[object]], tmp_path: Path
) -> None:
    worker, access = curled
    url = f"{worker.url}/v1/jobs/curl-{secrets.token_hex(8)}"
    curl(*access, "--request", "PUT", "--data", '{"owner": "cluster"}', url)
    arguments: list[object] = []
    for map_id in range(5):
        path = tmp_path / str(map_id)
        path.write_bytes(make_frame([(1, bytes(2 * MIB), 1)], partitions=2, map_id=map_id))
        arguments += ["--upload-file", path, f"{url}/shuffles/words/0/frames"]
    answers = curl(*access, *arguments)
    assert answers.count('"duplicate": false') == 5
    curl(*access, "--request", "DELETE", url)


def test_certificates_are_read_again(tmp_path: Path) -> None:
    """Who renews them restarts no worker; peers take the new authority, too."""
    old, new = (Authority.make(tmp_path, name) for name in ("old", "new"))
    shown = {name: tmp_path / f"tls.{name}" for name in ("crt", "key", "ca")}

    def show(authority: Authority, *trusted: Authority) -> None:
        for name, text in (
            ("ca", b"".join(each.ca.read_bytes() for each in trusted)),
            ("key", authority.key.read_bytes()),
            ("crt", authority.cert.read_bytes()),
        ):
            draft = tmp_path / "draft"
            draft.write_bytes(text)
            draft.replace(shown[name])

    show(old, old)
    options = {"tls_cert": shown["crt"], "tls_key": shown["key"], "tls_ca": shown["ca"],
               "peers_interval_seconds": 0.2}  # fmt: skip
    with started_workers(2, key=KEY, options=options) as (first, second):

        def both(authority: Authority) -> bool:
            with suppress(crossdock.CrossdockError), connect(first, authority.ca) as cluster:
                return len(cluster.members().reachable) == 2
            return False

        eventually(lambda: both(old), what="they meet", pause=0.1)
        show(new, old, new)
        eventually(lambda: both(new), what="the new certificates", pause=0.5)
        for worker in (first, second):
            eventually(
                lambda w=worker: all(p["state"] == "serving" for p in peers_of(w, new.ca)),
                what="they know each other",
            )


def test_peers_of_a_dns_name_are_known_by_its_certificate(tmp_path: Path) -> None:
    """In Kubernetes certificates have names alone: no pod's address is known before it is there."""
    named = Authority.make(tmp_path, "named", addresses=False)
    with ExitStack() as stack:
        first = stack.enter_context(WorkerProcess(key=KEY, options=named.options()))
        first.start()
        peers = {"peers": f"dns+https://localhost:{first.port}", "peers_interval_seconds": 0.2}
        second = stack.enter_context(WorkerProcess(key=KEY, options={**named.options(), **peers}))
        second.start()
        eventually(
            lambda: [p["state"] for p in peers_at(second, named.ca)].count("serving") == 2,
            what="the second to meet the first",
        )


def peers_at(worker: WorkerProcess, ca: Path) -> list[dict[str, str]]:
    """Ask by a name that the certificate has."""
    token = tokens.mint(KEY, job=ANY_JOB, rights=[Right.ADMIN], ttl_seconds=60)
    connection = http.client.HTTPSConnection(
        "localhost", worker.port, timeout=5, context=ssl.create_default_context(cafile=ca)
    )
    with closing(connection):
        connection.request("GET", "/v1/workers", headers={"Authorization": f"Bearer {token}"})
        found: list[dict[str, str]] = json.loads(connection.getresponse().read())["workers"]
    return found


def peers_of(worker: WorkerProcess, ca: Path) -> list[dict[str, str]]:
    with (
        connect(worker, ca) as cluster,
        cluster.pool.call("GET", worker.url, "/v1/workers") as response,
    ):
        found = response.read_json()
    assert isinstance(found, dict)
    workers: list[dict[str, str]] = found["workers"]
    return workers
