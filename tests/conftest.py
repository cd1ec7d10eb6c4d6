"""Fixtures of all tests. `harness.py` beside this file has the workers."""

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psutil
import pytest
from hypothesis import HealthCheck, settings

import crossdock
from forked import FORKERS
from harness import (
    KEY,
    SHARED_PROCESSES,
    StartWorker,
    WorkerProcess,
    connect_all,
    eventually,
    started_workers,
)
from raw import Peer, Target

settings.register_profile(
    "tests",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def _session_worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        SHARED_PROCESSES.add(process.start().pid)
        yield process


@pytest.fixture(scope="session")
def _session_secure_worker() -> Iterator[WorkerProcess]:
    with WorkerProcess(key=KEY) as process:
        SHARED_PROCESSES.add(process.start().pid)
        yield process


@pytest.fixture
def worker(_session_worker: WorkerProcess) -> WorkerProcess:
    """A worker without tokens, shared by all tests: use a job of your own, and do not kill it."""
    assert _session_worker.running, "an earlier test ended the shared worker"
    return _session_worker


@pytest.fixture
def secure_worker(_session_secure_worker: WorkerProcess) -> WorkerProcess:
    """A shared worker that asks for tokens; `token` and `admin_token` mint them."""
    assert _session_secure_worker.running, "an earlier test ended the shared worker"
    return _session_secure_worker


@pytest.fixture
def start_worker() -> Iterator[StartWorker]:
    """A function that starts a worker of the test's own: `start_worker(stall_seconds=1)`.

    `key=` makes it ask for tokens; every other argument is an option of the command line.
    """
    with ExitStack() as stack:

        def start(*, key: bytes | None = None, **options: object) -> WorkerProcess:
            return stack.enter_context(WorkerProcess(key=key, options=options)).start()

        yield start


@pytest.fixture
def two_workers() -> Iterator[list[WorkerProcess]]:
    """Two workers of the test's own, the second with the first as its peer."""
    with started_workers(2) as workers:
        yield workers


@pytest.fixture
def cluster(worker: WorkerProcess) -> Iterator[crossdock.Cluster]:
    """A client of the shared worker."""
    with worker.connect() as found:
        yield found


@pytest.fixture
def two_worker_cluster(two_workers: list[WorkerProcess]) -> Iterator[crossdock.Cluster]:
    """A client of `two_workers`."""
    with connect_all(two_workers) as found:
        yield found


@pytest.fixture
def job_uid() -> str:
    """A uid that no other test uses."""
    return f"job-{secrets.token_hex(8)}"


@pytest.fixture
def job(cluster: crossdock.Cluster, job_uid: str) -> Iterator[crossdock.Job]:
    """A registered job of the shared worker, ended after the test."""
    with cluster.job(job_uid, owner="runner", lease_seconds=3600) as found:
        yield found
        found.end()


# -- the conformance suite -----------------------------------------------------------------
#
# It speaks raw HTTP to one worker. To point it at any worker, of any implementation, set
# CROSSDOCK_CONFORMANCE_URL and, unless it takes every request, CROSSDOCK_CONFORMANCE_TOKEN to an
# admin token. Without them it starts its own.

_URL = os.environ.get("CROSSDOCK_CONFORMANCE_URL", "").rstrip("/")
_TOKEN = os.environ.get("CROSSDOCK_CONFORMANCE_TOKEN", "")


@pytest.fixture(scope="session")
def peer(request: pytest.FixtureRequest) -> Peer:
    """The worker under test."""
    if _URL:
        return Peer(_URL, _TOKEN)
    own: WorkerProcess = request.getfixturevalue("_session_secure_worker")
    return Peer(own.url, own.admin_token())


@pytest.fixture
def own_worker() -> Iterator[WorkerProcess]:
    """A worker that the test may restart; such tests do not run against a foreign one."""
    if _URL:
        pytest.skip("only a worker of our own is restarted")
    with WorkerProcess(key=KEY) as process:
        yield process.start()


@pytest.fixture
def target(peer: Peer) -> Iterator[Target]:
    """A shuffle of a fresh, registered job; the job is deleted afterwards."""
    found = Target(peer, f"conformance-{secrets.token_hex(8)}")
    assert found.register().status == 201
    yield found
    peer.ask("DELETE", found.job_path)


@pytest.fixture(autouse=True, scope="module")
def no_leaks() -> Iterator[None]:
    """No process and no thread outlives a test module, but for the shared ones."""
    threads, children = set(threading.enumerate()), _children()

    def leaked() -> list[object]:
        fresh = set(threading.enumerate()) - threads
        return [*(_children() - children), *(t for t in fresh if not t.daemon)]

    yield
    eventually(lambda: not leaked(), what=f"processes or threads left behind: {leaked()}")


def _children() -> set[psutil.Process]:
    """Return the running children of this process and its forkers, but for the shared ones."""
    forkers = {forker.pid for forker in FORKERS}
    found = set()
    for parent in (os.getpid(), *forkers):
        for child in psutil.Process(parent).children():
            with suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.add(child)
    return {child for child in found if child.pid not in SHARED_PROCESSES | forkers}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what rounds of chaos came to; they may have run in other processes."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                for name, value in report.user_properties:
                    if name == "chaos":
                        terminalreporter.write_line(f"chaos: {value}")
