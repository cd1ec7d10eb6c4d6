"""Persist runs of unknown end: requests that land late, damage on the way, stores that are away."""

import gc
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossdock.errors import CrossdockError
from crossdock.lifecycle.runs import keys_of_intent
from crossdock.lifecycle.timing import Timing
from crossdock.store.api import Capabilities, Store, UnfinishedUpload
from crossdock.store.errors import StoreUnavailable, StoreUnsure
from crossdock.store.layout import INTENT_ORDINALS, ShuffleLayout
from crossdock.store.opening import open_store
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock.wire.frame import HEADER_BYTES, Columns, FrameHeader
from crossdock_worker import recovery
from crossdock_worker.persist import Persister
from crossdock_worker.persist_run import PersistRun
from crossdock_worker.recovery import Recovery
from crossdock_worker.runs import Runs
from crossdock_worker.shuffle_log import ShuffleLog
from harness import eventually
from raw import make_frame

KEY = ShuffleKey("job", "words", 0)


class Late:
    """A store where puts of records get no answer, and land when the test says so."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.late = False
        self.away = False
        self.hidden: set[str] | None = None
        """Keys of uploads that only a listing by the exact key shows; None: there are none."""
        self._held: list[tuple[str, Any]] = []

    @property
    def capabilities(self) -> Capabilities:
        found = self._inner.capabilities
        return found if self.hidden is None else replace(found, lists_uploads=False)

    def uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        if self.hidden is None:
            yield from self._inner.uploads(prefix)
        elif prefix in self.hidden:
            yield UnfinishedUpload(prefix, "id")

    def abort(self, upload: UnfinishedUpload) -> None:
        assert self.hidden is not None
        self.hidden.discard(upload.key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def stopped_by(self, _: object) -> "Late":
        return self

    def put(self, key: str, body: Any, **more: Any) -> Any:
        if self.away and "/segments/" in key:
            raise StoreUnavailable("away")
        if self.late and "/records/" in key:
            self._held.append((key, body))
            raise StoreUnsure("no answer")
        return self._inner.put(key, body, **more)

    def delete(self, keys: Any) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self._inner.delete(keys)

    def land(self) -> None:
        """Let the first put that was held take effect."""
        key, body = self._held[0]
        self._inner.put(key, body)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Late]:
    inner = open_store((tmp_path / "store").as_uri())
    yield Late(inner)
    inner.close()


def push(log: ShuffleLog, map_id: int, block: bytes) -> None:
    data = make_frame([(1, block, 1)], partitions=8, map_id=map_id)
    header = FrameHeader.decode(data[:HEADER_BYTES])
    end = HEADER_BYTES + header.columns_bytes
    with log.reserve(header) as reservation:
        log.payload.write(reservation.payload_at, data[end:])
        assert log.commit(header, Columns.decode(header, data[HEADER_BYTES:end]), reservation)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ShuffleLog]:
    """A log with three frames."""
    made = ShuffleLog.create(tmp_path / "log", KEY)
    for map_id in range(3):
        push(made, map_id, b"map %d" % map_id)
    yield made
    made.close()


@pytest.fixture
def persister(store: Late) -> Iterator[Persister]:
    made = Persister(
        store, cluster="c", worker="w", segment_bytes=2**20, uploads=2,
        timing=Timing(settle_seconds=0), on_end=lambda *_: None,
    )  # fmt: skip
    yield made
    made.close()


def run(persister: Persister, log: ShuffleLog) -> BaseException | None:
    """Persist everything; return what went wrong."""
    progress = persister.persist(log, tables.frame_keys(log.frames())).progress
    assert progress is not None
    return progress.future.exception(20)


def objects(store: Late, part: str = "") -> list[str]:
    return [o.key for o in store.list("c/job/") if part in o.key]


def settled(persister: Persister, log: ShuffleLog) -> None:
    persister.look_after()
    eventually(lambda: not log.runs.unfinished, what="the end of the run")


def persisted(log: ShuffleLog) -> bool:
    return bool(log.runs.has(log.frames()).all())


def test_a_record_that_lands_after_its_run_was_undone_counts_for_nothing(
    store: Late, log: ShuffleLog, persister: Persister
) -> None:
    store.late = True
    assert isinstance(run(persister, log), StoreUnsure)
    (left,) = log.runs.unfinished
    settled(persister, log)
    assert not objects(store)
    store.late = False
    store.land()
    assert persister.recovery.adopt(log, left) is None
    assert not persisted(log)


def test_runs_are_left_alone_for_the_settle_time_of_every_clock(
    store: Late, log: ShuffleLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of this one: the store's may be slower."""
    now = 100.0
    monkeypatch.setattr(recovery.time, "monotonic", lambda: now)
    timing = Timing(settle_seconds=10, clock_margin=0.25)
    found = Recovery(store, cluster="c", timing=timing)
    found.add(log, "run")
    now = 112.4
    assert not found.due()
    now = 112.5
    assert found.due() == [(log, "run")]


def test_a_run_is_not_undone_while_its_record_may_come(
    store: Late, log: ShuffleLog, persister: Persister
) -> None:
    store.late = True
    assert isinstance(run(persister, log), StoreUnsure)
    assert objects(store, "/segments/")
    store.late = False
    store.land()
    settled(persister, log)
    assert persisted(log)
    assert objects(store, "/segments/")


def test_a_record_that_lands_after_a_restart_brings_its_run_back_whole(
    store: Late, log: ShuffleLog, persister: Persister, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.late = True
    monkeypatch.setattr(PersistRun, "_undo", lambda _: None)  # it died
    run(persister, log)
    (left,) = log.runs.unfinished
    store.late = False
    persister.recovery.add(log, left)  # as at the next start
    assert persister.recovery.adopt(log, left) is None
    assert objects(store, "/segments/")
    store.land()
    settled(persister, log)
    assert persisted(log)
    assert objects(store, "/segments/")
    assert not objects(store, "/intents/")


def test_a_run_that_died_before_its_record_goes_once_the_store_has_settled(
    store: Late, log: ShuffleLog, persister: Persister, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.late = True
    monkeypatch.setattr(PersistRun, "_undo", lambda _: None)
    run(persister, log)
    persister.recovery.add(log, log.runs.unfinished[0])
    settled(persister, log)
    assert not persisted(log)
    assert not objects(store)


def test_a_damaged_record_deletes_no_segment_of_a_finished_run(
    store: Late, log: ShuffleLog, persister: Persister, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Runs, "forget", lambda *_: None)  # it died before the intent went
        assert run(persister, log) is None
    log.free(tables.frame_keys(log.frames()))
    (record,) = (tmp_path / "store").rglob("records/*")
    damaged = bytearray(record.read_bytes())
    damaged[40] ^= 1
    record.write_bytes(damaged)
    persister.recovery.add(log, log.runs.unfinished[0])
    settled(persister, log)
    assert objects(store, "/segments/")


def test_a_damaged_record_of_an_unfinished_run_deletes_nothing(
    store: Late, log: ShuffleLog, persister: Persister, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Runs, "finish", lambda *_: None)  # it died before the record was here
        patch.setattr(Runs, "forget", lambda *_: None)
        run(persister, log)
    (record,) = (tmp_path / "store").rglob("records/*")
    whole = record.read_bytes()
    record.write_bytes(whole[:-1] + b"x")
    (left,) = log.runs.unfinished
    persister.recovery.settle(log, left)
    assert objects(store, "/segments/")
    record.write_bytes(whole)
    settled(persister, log)
    assert persisted(log)


def test_what_cannot_be_undone_now_is_undone_later(
    store: Late, log: ShuffleLog, persister: Persister
) -> None:
    store.away = True
    assert isinstance(run(persister, log), CrossdockError)
    assert objects(store, "/intents/")
    persister.look_after()  # the store is away still: it is tried again
    store.away = False

    def gone() -> bool:
        persister.look_after()
        return not log.runs.unfinished

    eventually(gone, what="the intent's end")
    assert not objects(store)


@pytest.mark.parametrize("late", [False, True])
def test_a_long_run_says_in_further_intents_what_it_may_make(
    store: Late, log: ShuffleLog, persister: Persister, *, late: bool
) -> None:
    for map_id in range(3, 3 + INTENT_ORDINALS + 2):
        push(log, map_id, bytes(600_000))  # one to a segment
    store.late = late
    if not late:
        assert run(persister, log) is None
        assert len(objects(store, "/segments/")) > INTENT_ORDINALS
        assert not objects(store, "/intents/")
        return
    assert isinstance(run(persister, log), StoreUnsure)
    (left,) = log.runs.unfinished
    layout = ShuffleLayout.of("c", KEY)
    assert objects(store, "/intents/") == [layout.intent(left), layout.intent(left, 1)]
    allowed = {k for part in range(2) for k in keys_of_intent(layout, left, part)}
    assert set(objects(store, "/segments/")) < allowed
    settled(persister, log)
    assert not objects(store)


def test_uploads_that_no_listing_by_prefix_shows_are_found_by_the_intents(
    store: Late, log: ShuffleLog, persister: Persister
) -> None:
    layout = ShuffleLayout.of("c", KEY)
    log.runs.begin("left")  # by a process that was killed
    for part in (0, 2):
        store.put(layout.intent("left", part), b"{}")
    lost = {layout.segment("left", 3), layout.segment("left", 2 * INTENT_ORDINALS)}
    other = layout.segment("another", 0)
    store.hidden = {other, *lost}
    persister.recovery.add(log, "left")
    settled(persister, log)
    assert store.hidden == {other}
    assert not objects(store)


def test_a_failed_run_holds_no_maps_of_deleted_logs(
    store: Late, log: ShuffleLog, persister: Persister
) -> None:
    store.away = True
    assert run(persister, log) is not None
    log.close()
    shutil.rmtree(log.directory)

    def held() -> list[str]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text().splitlines()
        return [line for line in maps if str(log.directory) in line]

    eventually(lambda: not held(), what=f"maps {held()}")
