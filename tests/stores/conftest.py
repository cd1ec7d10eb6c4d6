"""The stores that the suite runs against. `servers.py` beside this file has the processes."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from places import Place

from crossdock.store.api import Meter, Store, StoreOptions
from crossdock.store.arrowfs import ArrowStore
from crossdock.store.opening import open_store


def _file(tmp_path: Path) -> Place:
    def opened(options: StoreOptions, meter: Meter | None) -> Store:
        return open_store((tmp_path / "store").as_uri(), options, meter=meter)

    return Place("file", opened)


def _arrow(tmp_path: Path) -> Place:
    (tmp_path / "arrow").mkdir()
    system = pafs.SubTreeFileSystem(str(tmp_path / "arrow"), pafs.LocalFileSystem())

    def opened(options: StoreOptions, meter: Meter | None) -> Store:
        return ArrowStore("test:///store", system, "store", meter=meter)

    return Place("arrow", opened)


@pytest.fixture(params=["file", "arrow"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each kind of store in turn."""
    found = {"file": _file, "arrow": _arrow}[request.param](tmp_path)
    yield found
    found.close()


@pytest.fixture
def store(place: Place) -> Store:
    """An open store with nothing in it."""
    return place.store()


@pytest.fixture
def folder() -> str:
    """A beginning of keys that no other test uses."""
    return f"cluster/job-{secrets.token_hex(4)}/"
