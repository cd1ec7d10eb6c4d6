"""Real workers for tests: processes that are started, killed, restarted, and always cleaned up."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import psutil

import crossdock
import forked
from crossdock.wire import tokens
from crossdock.wire.tokens import ANY_JOB, JOB_RIGHTS, Right
from ports import unused_ports

COMMAND: Final = Path(sys.executable).with_name("crossdock")
MODULES: Final = (
    "crossdock_worker.cli", "crossdock_worker.server", "crossdock_worker.supervisor",
    "pydantic.fields", "pydantic.type_adapter",
)  # fmt: skip
"""What a worker imports. Those of pydantic are the command line's."""
WAIT_SECONDS: Final = 60.0
"""For how long a test waits for what is to come: longer than any machine takes under load."""
KEY: Final = b"a-key-that-only-the-tests-know-0123456789abcdef"
QUICK: Final = crossdock.Options(
    deadline_seconds=60, loss_after_seconds=2, connect_seconds=2, stall_seconds=10
)
"""Client options for tests: who is gone is soon lost."""

SHARED_PROCESSES: Final[set[int]] = set()
"""Process ids of the workers and servers that live for the session."""

T = TypeVar("T")


def eventually(
    probe: Callable[[], T], *, seconds: float = WAIT_SECONDS, what: str = "", pause: float = 0.02
) -> T:
    """Return the first truthy value of `probe`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or probe}; last: {value!r}")
        time.sleep(pause)


class WorkerProcess:
    """`crossdock worker` as a process of its own, in a temporary directory. Use as a context.

    Its port is chosen at the first start and kept by restarts: nobody else takes it meanwhile.
    """

    def __init__(
        self,
        *,
        key: bytes | None = None,
        options: Mapping[str, object] | None = None,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a worker; `start` runs it.

        Args:
            key: a signing key; None takes every request (--insecure-no-auth).
            options: more options of the command line, with underscores; True is a bare flag, and
                of a list each is given.
            directory: where data, key and log go; default a temporary one, removed at the end.
            environment: more variables for the process.
        """
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="crossdock-test-"))
        self.data_dir = self.directory / "data"
        self.key = key
        self.key_file = self.directory / "shuffle.key"
        if key is not None:
            self.key_file.write_bytes(key + b"\n")
        self.options = dict(options or {})
        self.log_file = self.directory / "log"
        self.port = 0
        self.url = ""
        self._environment = dict(environment or {})
        self._process: forked.Process | None = None
        self._log_start = 0

    # -- life ------------------------------------------------------------------------------

    def command(self) -> list[str]:
        """Return the command line."""
        access = ["--insecure-no-auth"] if self.key is None else ["--key-file", self.key_file]
        line: list[object] = [
            *(COMMAND, "worker", "--data-dir", self.data_dir),
            *("--listen", f"127.0.0.1:{self.port}"),
            *access,
        ]
        for name, values in self.options.items():
            for value in values if isinstance(values, list) else [values]:
                line.append(f"--{name.replace('_', '-')}")
                if value is not True:
                    line.append(value)
        return [str(part) for part in line]

    def launch(self) -> Self:
        """Start the process without waiting for it."""
        assert self._process is None, "it runs already"
        self.port = self.port or unused_ports(1)[0]
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        self._process = forked.start(
            self.command(), log=self.log_file, environment=self._environment, modules=MODULES
        )
        return self

    def start(self) -> Self:
        """Start the process and wait until it answers."""
        return self.launch().wait_ready()

    def wait_ready(self, seconds: float = WAIT_SECONDS) -> Self:
        """Wait for the line "worker is ready" of this start, then for /healthz."""
        line = eventually(self._ready_line, seconds=seconds, what="the worker's start")
        parts = urlsplit(str(line["url"]))
        self.port, self.url = int(parts.port or 0), str(line["url"])
        if parts.scheme == "http":
            eventually(self._healthy, seconds=seconds, what="/healthz")
        return self

    def _ready_line(self) -> dict[str, Any] | None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(
                f"the worker ended with {self._process.returncode}:\n{self.log_text()}"
            )
        return next((e for e in self.log_lines() if e.get("event") == "worker is ready"), None)

    def _healthy(self) -> bool:
        with suppress(OSError):
            return self.request("GET", "/healthz").status == 200
        return False

    def kill9(self) -> None:
        """Kill the process with SIGKILL and reap it."""
        self._end(signal.SIGKILL)

    def terminate(self, seconds: float = WAIT_SECONDS) -> int:
        """Send SIGTERM and wait; return the exit code."""
        return self._end(signal.SIGTERM, seconds)

    def _end(self, number: signal.Signals, seconds: float = WAIT_SECONDS) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"no end {seconds} s after {number!r}") from None

    def restart(self, *, kill: bool = True, **options: object) -> Self:
        """Kill (or terminate) it and start it again on the same port and data."""
        if kill:
            self.kill9()
        else:
            self.terminate()
        self.options |= options
        return self.start()

    def close(self) -> None:
        """End the process and all its children, and remove the directory. Idempotent."""
        if self._process is not None:
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self._process.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
        self.kill9()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what it shows ---------------------------------------------------------------------

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def threads(self) -> int:
        """Threads of the process now."""
        return psutil.Process(self.pid).num_threads()

    @property
    def descriptors(self) -> int:
        """Open file descriptors of the process now."""
        return psutil.Process(self.pid).num_fds()

    @property
    def sockets(self) -> int:
        """Open sockets of the process now."""
        found = 0
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(OSError):
                found += str(link.readlink()).startswith("socket:")
        return found

    @property
    def anonymous_bytes(self) -> int:
        """Resident memory without mapped files, which are page cache."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
        return int(fields["Anonymous"].split()[0]) * 1024

    def log_text(self) -> str:
        """Return what it logged, over all starts."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def log_lines(self) -> Iterator[dict[str, Any]]:
        """Yield the JSON lines logged since the last start."""
        if not self.log_file.exists():
            return
        for line in self.log_file.read_bytes()[self._log_start :].splitlines(keepends=True):
            with suppress(ValueError):
                if line.endswith(b"\n") and isinstance(entry := json.loads(line), dict):
                    yield entry

    # -- talking to it ---------------------------------------------------------------------

    def token(
        self,
        job: str = ANY_JOB,
        rights: Iterable[Right] = JOB_RIGHTS,
        *,
        ttl_seconds: float = 3600,
        key: bytes | None = None,
    ) -> str:
        """Mint a token with this worker's key, or another."""
        return tokens.mint(key or self.key or KEY, job=job, rights=rights, ttl_seconds=ttl_seconds)

    def admin_token(self) -> str:
        """Mint a token that opens everything."""
        return self.token(ANY_JOB, [Right.ADMIN])

    def request(
        self,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> "Answer":
        """Send one plain request on a connection of its own."""
        return send(self.url, method, target, body=body, token=token, headers=headers)

    def get_json(self, target: str) -> Any:
        """GET as an administrator; the answer must be 200."""
        answer = self.request("GET", target, token=self.admin_token() if self.key else None)
        assert answer.status == 200, answer
        return answer.json()

    def job_bytes(self, job: str) -> int:
        """Return what the worker says a job takes on its disk."""
        return int(self.get_json(f"/v1/jobs/{job}")["disk_bytes"])

    def connect(
        self, *, token: str | None = None, options: crossdock.Options = QUICK
    ) -> crossdock.Cluster:
        """Return a client of this worker alone."""
        given = token or (self.admin_token() if self.key else "")
        return crossdock.connect([self.url], token=given, options=options)


StartWorker = Callable[..., WorkerProcess]
"""What the fixture `start_worker` is."""


class PatchedWorker(WorkerProcess):
    """One that behaves as an older version does: `patch` is run before it."""

    patch = ""

    def command(self) -> list[str]:
        line = super().command()
        if self.patch:
            begins = "import sys\nfrom crossdock.__main__ import main\nsys.argv[0] = 'crossdock'\n"
            script = self.directory / "patched.py"
            script.write_text(f"{begins}{self.patch}\nmain()\n")
            line[:1] = [sys.executable, str(script)]
        return line


class Answer:
    """A whole answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code."""
        return str(self.json()["code"])

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:300]!r}>"


def send(
    url: str,
    method: str,
    target: str,
    *,
    body: bytes | None = None,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> Answer:
    """Send one request to a URL on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        lines = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, target, body, {**lines, **(headers or {})})
        return Answer(connection.getresponse())
    finally:
        connection.close()


@contextmanager
def silent(worker: WorkerProcess) -> Iterator[None]:
    """Stop a worker's process: it takes connections, and answers nothing."""
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker.pid, signal.SIGCONT)


@contextmanager
def started_workers(
    count: int,
    *,
    peers: bool = True,
    key: bytes | None = None,
    options: Mapping[str, object] | None = None,
) -> Iterator[list[WorkerProcess]]:
    """Run several workers that know each other, each told of those before it."""
    with ExitStack() as stack:
        found: list[WorkerProcess] = []
        for _ in range(count):
            more: dict[str, object] = dict(options or {})
            if peers and found:
                more["peers"] = ",".join(w.url for w in found)
            found.append(stack.enter_context(WorkerProcess(key=key, options=more)).start())
        yield found


@contextmanager
def mutual_workers(count: int, **options: object) -> Iterator[list[WorkerProcess]]:
    """Run workers each of which is told of all, started at once."""
    with ExitStack() as stack:
        found = [stack.enter_context(WorkerProcess()) for _ in range(count)]
        for worker, port in zip(found, unused_ports(count), strict=True):
            worker.port = port
        peers = ",".join(f"http://127.0.0.1:{worker.port}" for worker in found)
        for worker in found:
            worker.options |= {"peers": peers, **options}
            worker.launch()
        for worker in found:
            worker.wait_ready()
        yield found


def connect_all(
    workers: Sequence[WorkerProcess],
    *,
    token: str = "",
    ca_file: Path | None = None,
    options: crossdock.Options = QUICK,
) -> crossdock.Cluster:
    """Return a client that is told of all these workers."""
    if not token and workers[0].key:
        token = workers[0].admin_token()
    urls = [w.url for w in workers]
    return crossdock.connect(urls, token=token, ca_file=ca_file, options=options)
