"""The conformance suite speaks raw HTTP to one worker.

To point it at any worker, of any implementation, set CROSSDOCK_CONFORMANCE_URL and, unless it
takes every request, CROSSDOCK_CONFORMANCE_TOKEN to an admin token. Without them it starts its own.
"""

import os
import secrets
from collections.abc import Iterator

import pytest
from raw import Peer, Target

from harness import KEY, WorkerProcess

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
