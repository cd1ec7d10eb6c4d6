"""Manifests of one view: the first holds, unless it names what is gone and another does not."""

from collections.abc import Iterator

import numpy as np
import pytest

from crossdock.store.api import ObjectInfo, Source, Store, StoreOptions
from crossdock.store.errors import StoreUnsure
from crossdock.store.layout import ShuffleLayout
from crossdock.store.manifest import Manifest, assemble
from crossdock.store.objects import read_whole
from crossdock.store.opening import open_store
from crossdock.store.publishing import publish
from crossdock.store.records import Record, SegmentInfo
from crossdock.store.segment import BATCH
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock.wire.crc import BytesLike

KEY = ShuffleKey("job", "words", 0)
LAYOUT = ShuffleLayout.of("c", KEY)


@pytest.fixture(params=["file", "moto"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "file":
        opened = open_store((request.getfixturevalue("tmp_path") / "store").as_uri())
    else:
        place = request.getfixturevalue("s3")
        opened = open_store(place[0], place[1])
    yield opened
    opened.delete([info.key for info in opened.list("")])
    opened.close()


@pytest.fixture
def s3(request: pytest.FixtureRequest) -> tuple[str, StoreOptions]:
    from servers import s3_options  # noqa: PLC0415

    server = request.getfixturevalue("moto")
    return f"s3://{server.bucket}/publishing", s3_options(server)


def persisted(store: Store, run: str) -> Manifest:
    """Put a segment of a run into the store, and return the manifest of a view that it serves."""
    data = run.ljust(8).encode() * 100
    info = store.put(LAYOUT.segment(run, 0), data)
    frames = np.zeros(1, tables.FRAME)
    frames["count"], frames["pieces"], frames["payload_bytes"] = 1, 1, len(data)
    batches = np.zeros(1, BATCH)
    batches["pieces"], batches["nbytes"] = 1, len(data)
    statistics = np.zeros(1, tables.STATISTICS)
    record = Record(
        run, "w", KEY, 1, [SegmentInfo(info.key, info.size, info.etag, 0)], frames, batches,
        np.ones((1, 1), bool), statistics,
    )  # fmt: skip
    return assemble(KEY, frames, statistics, [record])


def held(store: Store, manifest: Manifest) -> list[str]:
    """Return the segments of the manifest that is in the store."""
    key = LAYOUT.manifest(manifest.view)
    return [s.key for s in Manifest.decode(read_whole(store, key), where=key).segments]


def test_the_first_holds(store: Store) -> None:
    first, second = persisted(store, "first"), persisted(store, "second")
    assert first.view == second.view
    assert publish(store, LAYOUT, first)
    assert publish(store, LAYOUT, first)
    assert not publish(store, LAYOUT, second)
    assert held(store, first) == [LAYOUT.segment("first", 0)]


def test_one_that_names_what_is_gone_is_replaced(store: Store) -> None:
    first, second = persisted(store, "first"), persisted(store, "second")
    assert publish(store, LAYOUT, first)
    store.delete([LAYOUT.segment("first", 0)])
    assert publish(store, LAYOUT, second)
    assert held(store, first) == [LAYOUT.segment("second", 0)]
    assert not publish(store, LAYOUT, first), "its segment is gone still"


def test_one_that_names_a_shorter_segment_is_replaced(store: Store) -> None:
    first, second = persisted(store, "first"), persisted(store, "second")
    publish(store, LAYOUT, first)
    store.put(LAYOUT.segment("first", 0), b"cut")
    assert publish(store, LAYOUT, second)


def test_it_is_not_replaced_by_one_that_names_what_is_gone_too(store: Store) -> None:
    first, second = persisted(store, "first"), persisted(store, "second")
    publish(store, LAYOUT, first)
    store.delete([LAYOUT.segment(run, 0) for run in ("first", "second")])
    assert not publish(store, LAYOUT, second)
    assert held(store, first) == [LAYOUT.segment("first", 0)]


def test_who_is_slower_adopts_what_was_replaced_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (persisted(store, run) for run in ("first", "second", "third"))
    publish(store, LAYOUT, first)
    store.delete([LAYOUT.segment("first", 0)])
    put, quicker = store.put, iter([second])

    def late(
        key: str, body: BytesLike | Source, *, if_match: str | None = None, **more: bool
    ) -> ObjectInfo:
        if if_match is not None:
            for other in quicker:
                put(key, other.encode())
        return put(key, body, if_match=if_match, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "put", late)
    assert not publish(store, LAYOUT, third)
    assert held(store, first) == [LAYOUT.segment("second", 0)]


@pytest.mark.parametrize("happened", [True, False])
def test_a_replacement_without_an_answer_is_looked_at(
    store: Store, monkeypatch: pytest.MonkeyPatch, happened: bool
) -> None:
    first, second = persisted(store, "first"), persisted(store, "second")
    publish(store, LAYOUT, first)
    store.delete([LAYOUT.segment("first", 0)])
    put, silences = store.put, iter([True])

    def unsure(
        key: str, body: BytesLike | Source, *, if_match: str | None = None, **more: bool
    ) -> ObjectInfo:
        silent = if_match is not None and next(silences, False)
        if happened or not silent:
            info = put(key, body, if_match=if_match, **more)  # type: ignore[arg-type]
        if silent:
            raise StoreUnsure("no answer")
        return info

    monkeypatch.setattr(store, "put", unsure)
    assert publish(store, LAYOUT, second)
    assert held(store, first) == [LAYOUT.segment("second", 0)]
