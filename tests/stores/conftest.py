"""The stores that the suite runs against. `servers.py` beside this file has the processes.

To run the suite against a server of your own, set CROSSDOCK_TEST_S3_URL (s3://bucket/prefix) and,
as needed, CROSSDOCK_TEST_S3_ENDPOINT, …_REGION and …_PATH_STYLE=true; credentials by boto3's chain.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from places import Place
from servers import ENVIRONMENT, S3Server, running, s3_options

from crossdock.errors import CrossdockError
from crossdock.store.api import Meter, Store, StoreOptions
from crossdock.store.arrowfs import ArrowStore
from crossdock.store.opening import open_store

_OWN_URL = os.environ.get("CROSSDOCK_TEST_S3_URL", "").rstrip("/")
KINDS = [
    "file",
    "arrow",
    "moto",
    "versitygw",
    pytest.param("minio", marks=pytest.mark.servers),
    *(["own"] if _OWN_URL else []),
]


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto's server: the quickest to have, and lenient."""
    with running("moto", tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="module")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A gateway to a directory: fast, and strict."""
    with running("versitygw", tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A whole object store; minutes to build, so only in `make test-servers`."""
    with running("minio", tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    if not _OWN_URL:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)


def s3_place(server: S3Server) -> Place:
    """Return an empty prefix of a server's bucket."""
    url = f"s3://{server.bucket}/test-{secrets.token_hex(6)}"
    return _place(server.kind, url, s3_options(server))


def _place(kind: str, url: str, shape: StoreOptions) -> Place:
    def opened(options: StoreOptions, meter: Meter | None) -> Store:
        return open_store(url, options, meter=meter)

    return Place(kind, opened, remote=url.startswith("s3:"), shape=shape)


def _own() -> Place:
    def setting(name: str) -> str:
        return os.environ.get(f"CROSSDOCK_TEST_S3_{name}", "")

    options = StoreOptions(
        endpoint_url=setting("ENDPOINT"),
        region=setting("REGION"),
        path_style=setting("PATH_STYLE").lower() == "true",
    )
    return _place("own", f"{_OWN_URL}/test-{secrets.token_hex(6)}", options)


def _arrow(directory: Path) -> Place:
    directory.mkdir()
    system = pafs.SubTreeFileSystem(str(directory), pafs.LocalFileSystem())

    def opened(options: StoreOptions, meter: Meter | None) -> Store:
        return ArrowStore("test:///store", system, "store", meter=meter)

    return Place("arrow", opened)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each kind of store in turn."""
    match request.param:
        case "file":
            found = _place("file", (tmp_path / "store").as_uri(), StoreOptions())
        case "arrow":
            found = _arrow(tmp_path / "arrow")
        case "own":
            found = _own()
        case kind:
            found = s3_place(request.getfixturevalue(kind))
    yield found
    with suppress(CrossdockError):
        store = found.store()
        store.delete(info.key for info in store.list(""))
    found.close()


@pytest.fixture
def store(place: Place) -> Store:
    """An open store with nothing in it."""
    return place.store()


@pytest.fixture
def folder() -> str:
    """A beginning of keys that no other test uses."""
    return f"cluster/job-{secrets.token_hex(4)}/"
