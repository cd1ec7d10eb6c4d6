"""Processes that work on a store: what they are given, and what others see of it."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from crossdock_operator.storage.access import Access
from crossdock_operator.storage.keepers import Keepers
from crossdock_operator.storage.tasks import Probe, place_of

SECRET = "nobody-may-see-this"


@pytest.fixture
def store() -> Iterator[socket.socket]:
    """A port at which a store is asked, and does not answer until the test does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        yield listener


def _environments() -> list[str]:
    """Return the environments that this process's children began with."""
    children = Path("/proc/self/task").glob("*/children")
    found = []
    for pid in {pid for file in children for pid in file.read_text().split()}:
        with suppress(OSError):  # it has ended
            found.append(Path(f"/proc/{pid}/environ").read_text())
    return found


async def test_credentials_reach_the_store_and_are_in_no_environment(store: socket.socket) -> None:
    url = f"http://127.0.0.1:{store.getsockname()[1]}"
    access = Access(
        cluster="c",
        namespace="n",
        name="c",
        store="s3://bucket/prefix",
        options=(f"endpoint_url={url}", "path_style=true", "region=us-east-1"),
        credentials={"AWS_ACCESS_KEY_ID": "an-account", "AWS_SECRET_ACCESS_KEY": SECRET},
    )
    keepers = Keepers()
    probe = asyncio.create_task(keepers.probe(access, place_of(access), Probe()))
    try:
        connection, _ = await asyncio.to_thread(store.accept)
        with connection:
            asked = await asyncio.to_thread(connection.recv, 65_536)
        assert b"Credential=an-account/" in asked
        found = _environments()
        assert found, "the storekeeper is a child"
        assert not any(SECRET in each for each in found)
    finally:
        probe.cancel()
        await asyncio.wait([probe])
        await keepers.close()
