"""What every store does, whatever it is. The rest is in `Capabilities`, and held to here too."""

import random
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import Place, RandomSource, Tally, keys, read, whole

from crossdock.errors import Closed, ConfigError, CrossdockError
from crossdock.store.api import ObjectInfo, Source, Store, Verb
from crossdock.store.errors import ObjectDamaged, ObjectExists, ObjectMissing
from crossdock.wire import crc
from crossdock.wire.crc import BytesLike

MIB = 2**20
DATA = random.Random(1).randbytes(300_000)


# -- whole objects -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"x", DATA, bytearray(DATA), memoryview(DATA), memoryview(DATA).cast("I")[:10]],
    ids=["empty", "one", "bytes", "bytearray", "memoryview", "words"],
)
def test_what_is_put_is_read(store: Store, folder: str, body: BytesLike) -> None:
    written = store.put(f"{folder}a", body)
    assert read(store, f"{folder}a") == whole(body)
    assert (written.key, written.size) == (f"{folder}a", memoryview(body).nbytes)
    with store.get(f"{folder}a") as reading:
        assert reading.info.etag == written.etag != ""
        assert reading.info.size == reading.nbytes == written.size


@pytest.mark.parametrize("nbytes", [0, 1, 3 * MIB + 17])
def test_a_source_is_read_in_pieces(store: Store, folder: str, nbytes: int) -> None:
    source = RandomSource(nbytes)
    assert store.put(f"{folder}a", source).size == nbytes
    assert source.longest_read <= 2 * MIB
    assert read(store, f"{folder}a") == whole(source)


def test_a_put_replaces_as_a_whole(store: Store, folder: str) -> None:
    first = store.put(f"{folder}a", b"first")
    with store.get(f"{folder}a"):
        second = store.put(f"{folder}a", b"the second")
    assert read(store, f"{folder}a") == b"the second"
    assert first.etag != second.etag
    assert keys(store, folder) == [f"{folder}a"]


class Broken:
    """A source that fails, or lies about its length, in the middle."""

    nbytes = 3 * MIB

    def __init__(self, problem: Exception | None) -> None:
        self._problem = problem

    def read_at(self, offset: int, size: int) -> bytes:
        if offset < 2 * MIB:
            return bytes(size)
        if self._problem:
            raise self._problem
        return bytes(size - 1)


@pytest.mark.parametrize("problem", [KeyError("broken"), None])
def test_a_source_that_breaks_leaves_nothing(
    store: Store, folder: str, problem: Exception | None
) -> None:
    with pytest.raises(KeyError if problem else ObjectDamaged):
        store.put(f"{folder}a", Broken(problem), crc32c=0)
    assert not keys(store, folder)
    assert not [*store.uploads(folder)]


# -- put-if-absent -------------------------------------------------------------------------


def test_put_if_absent_replaces_nothing(store: Store, folder: str) -> None:
    store.put(f"{folder}a", b"first", if_absent=True)
    with pytest.raises(ObjectExists, match="a"):
        store.put(f"{folder}a", b"second", if_absent=True)
    assert read(store, f"{folder}a") == b"first"
    assert not [*store.uploads(folder)]


def test_one_of_many_is_first(store: Store, folder: str) -> None:
    if not store.capabilities.conditional_put:
        pytest.skip("the store cannot decide it")
    racers = 8
    start = threading.Barrier(racers)

    def race(number: int) -> ObjectInfo | None:
        start.wait()
        with suppress(ObjectExists):
            return store.put(f"{folder}a", b"%d" % number * 1000, if_absent=True)
        return None

    with ThreadPoolExecutor(racers) as pool:
        results = [*pool.map(race, range(racers))]
    [winner] = [n for n, info in enumerate(results) if info]
    assert read(store, f"{folder}a") == b"%d" % winner * 1000


# -- replacing what is known ---------------------------------------------------------------


def test_only_what_is_named_is_replaced(store: Store, folder: str) -> None:
    first = store.put(f"{folder}a", b"first")
    second = store.put(f"{folder}a", b"second one", if_match=first.etag)
    with pytest.raises(ObjectExists, match="a"):
        store.put(f"{folder}a", b"the third", if_match=first.etag)
    with pytest.raises(ObjectMissing, match="b"):
        store.put(f"{folder}b", b"the third", if_match=first.etag)
    assert read(store, f"{folder}a", etag=second.etag) == b"second one"
    assert keys(store, folder) == [f"{folder}a"]
    assert not [*store.uploads(folder)]


def test_one_of_many_replaces(store: Store, folder: str) -> None:
    if not store.capabilities.conditional_replace:
        pytest.skip("the store cannot decide it")
    racers = 8
    start = threading.Barrier(racers)
    before = store.put(f"{folder}a", b"before").etag

    def race(number: int) -> ObjectInfo | None:
        start.wait()
        with suppress(ObjectExists):
            return store.put(f"{folder}a", b"%d" % number * 1000, if_match=before)
        return None

    with ThreadPoolExecutor(racers) as pool:
        results = [*pool.map(race, range(racers))]
    [winner] = [n for n, info in enumerate(results) if info]
    assert read(store, f"{folder}a") == b"%d" % winner * 1000


# -- checksums -----------------------------------------------------------------------------


@pytest.mark.parametrize("body", [DATA, RandomSource(2 * MIB), b""])
def test_a_right_checksum_is_taken(store: Store, folder: str, body: bytes | Source) -> None:
    store.put(f"{folder}a", body, crc32c=crc.extend(0, whole(body)))
    assert read(store, f"{folder}a") == whole(body)


def test_a_wrong_checksum_is_refused(store: Store, folder: str) -> None:
    with suppress(ObjectDamaged):
        store.put(f"{folder}a", DATA, crc32c=1)
        assert not store.capabilities.checks_checksums
        return
    assert not keys(store, folder)


# -- ranges --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, None),
        (0, 1),
        (0, 300_000),
        (5, 6),
        (299_999, None),
        (300_000, None),
        (7, 7),
        (300_000, 300_000),
        (-1, None),
        (-300_000, None),
        (100_000, 200_000),
    ],
)
def test_a_range_is_what_it_says(store: Store, folder: str, start: int, stop: int | None) -> None:
    etag = store.put(f"{folder}a", DATA).etag
    assert read(store, f"{folder}a", start, stop, etag=etag) == DATA[start:stop]
    with store.get(f"{folder}a", start, stop) as reading:
        assert reading.info.size == len(DATA)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 300_001), (300_001, None), (299_999, 300_001), (-300_001, None)]
)
def test_an_object_shorter_than_the_range_is_damaged(
    store: Store, folder: str, start: int, stop: int | None
) -> None:
    store.put(f"{folder}a", DATA)
    with pytest.raises(ObjectDamaged, match="300000"):
        store.get(f"{folder}a", start, stop)


@pytest.mark.parametrize(("start", "stop"), [(5, 4), (-5, 7)])
def test_a_range_that_is_none_is_refused(
    store: Store, folder: str, start: int, stop: int | None
) -> None:
    store.put(f"{folder}a", DATA)
    with pytest.raises(ConfigError):
        store.get(f"{folder}a", start, stop)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (3, 9), (4, 4), (-2, None)])
def test_another_object_under_the_key_is_damage(
    store: Store, folder: str, start: int, stop: int | None
) -> None:
    etag = store.put(f"{folder}a", DATA).etag
    store.put(f"{folder}a", DATA[::-1])
    with pytest.raises(ObjectDamaged, match="ETag"):
        store.get(f"{folder}a", start, stop, etag=etag)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (3, 9), (4, 4), (-2, None)])
def test_what_is_not_there_is_missing(
    store: Store, folder: str, start: int, stop: int | None
) -> None:
    store.put(f"{folder}a/b", DATA)
    for key in (f"{folder}a", f"{folder}b", "nothing/like/it"):
        with pytest.raises(ObjectMissing, match=key):
            store.get(key, start, stop, etag="x")


def test_many_threads_read_and_write(store: Store, folder: str) -> None:
    def work(number: int) -> None:
        data = DATA[number : number + 100_000]
        store.put(f"{folder}{number}", data)
        assert read(store, f"{folder}{number}") == data

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(32)))
    assert len(keys(store, folder)) == 32


# -- uploads -------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[], [0], [100], [5 * MIB, 5 * MIB, 1], [3 * MIB] * 5])
def test_an_upload_is_what_was_written(store: Store, folder: str, sizes: list[int]) -> None:
    pieces = [random.Random(n).randbytes(size) for n, size in enumerate(sizes)]
    with store.upload(f"{folder}a") as upload:
        for piece in pieces:
            upload.write(memoryview(bytearray(piece)))
        assert not keys(store, folder)
        info = upload.complete()
    assert info.size == sum(sizes)
    assert read(store, f"{folder}a", etag=info.etag) == b"".join(pieces)
    assert not [*store.uploads(folder)]


@pytest.mark.parametrize("sizes", [[100], [6 * MIB, 6 * MIB]])
@pytest.mark.parametrize("error", [True, False])
def test_an_upload_that_is_left_is_gone(
    store: Store, folder: str, sizes: list[int], error: bool
) -> None:
    with suppress(ZeroDivisionError), store.upload(f"{folder}a") as upload:
        for size in sizes:
            upload.write(bytes(size))
        if error:
            raise ZeroDivisionError
    assert not keys(store, folder)
    assert not [*store.uploads(folder)]


@pytest.mark.parametrize("nbytes", [100, 11 * MIB])
def test_an_upload_replaces_nothing_if_asked(store: Store, folder: str, nbytes: int) -> None:
    store.put(f"{folder}a", b"first")
    with store.upload(f"{folder}a") as upload:
        upload.write(bytes(nbytes))
        with pytest.raises(ObjectExists):
            upload.complete(if_absent=True)
    with store.upload(f"{folder}b") as upload:
        upload.write(bytes(nbytes))
        assert upload.complete(if_absent=True).size == nbytes
    assert read(store, f"{folder}a") == b"first"
    assert not [*store.uploads(folder)]


def test_unfinished_uploads_are_found_and_ended(place: Place, folder: str) -> None:
    # moto answers 500 to a part of an aborted upload: that is not to take the whole deadline.
    store = place.store(replace(place.shape, deadline_seconds=2))
    names = [f"{folder}{n}/part" for n in (2, 1)]
    uploads = [store.upload(name) for name in names]
    for upload in uploads:
        upload.write(bytes(17 * MIB))
    found = [*store.uploads(folder)]
    if store.capabilities.lists_uploads:
        assert {each.key for each in found} == set(names)
        assert {each.key for each in store.uploads(folder[:-1])} == set(names)
        assert [each.key for each in store.uploads(f"{folder}2/pa")] == [names[0]]
    assert not keys(store, folder)
    for each in found:
        store.abort(each)
        store.abort(each)
    assert not [*store.uploads(folder)]
    for upload in uploads:
        if found:
            with pytest.raises(CrossdockError):
                upload.complete()
        upload.__exit__(None, None, None)
    assert not keys(store, folder)
    assert not [*store.uploads(folder)]


def test_an_unfinished_upload_is_found_under_its_very_key(store: Store, folder: str) -> None:
    with store.upload(f"{folder}a") as upload:
        upload.write(bytes(17 * MIB))
        [found] = store.uploads(f"{folder}a")  # also by servers that hide it under a folder
        assert found.key == f"{folder}a"
    assert not [*store.uploads(f"{folder}a")]


# -- listings ------------------------------------------------------------------------------


def test_listings_rise_like_bytes(store: Store, folder: str) -> None:
    names = ["a!", "a/b", "a/b.c/d", "a0", "b/1", "b/10", "b/2", "é", "z z+&=%20", "Z"]
    for name in names:
        store.put(folder + name, name.encode())
    full = sorted((folder + name for name in names), key=str.encode)
    assert keys(store, folder) == full
    assert keys(store, folder + "b/1") == [folder + "b/1", folder + "b/10"]
    assert keys(store, folder + "nothing") == []
    for after in [*full, folder, folder + "a/", folder + "b/15", folder + "zzz"]:
        assert keys(store, folder, after=after) == [key for key in full if key > after]
    sizes = {info.key: info.size for info in store.list(folder)}
    assert sizes == {folder + name: len(name.encode()) for name in names}


def test_a_listing_has_what_a_read_has(store: Store, folder: str) -> None:
    written = store.put(f"{folder}a", DATA)
    [listed] = store.list(folder)
    assert (listed.key, listed.size) == (written.key, written.size)
    assert listed.etag in {"", written.etag}
    assert listed.modified is None or listed.modified.tzinfo is not None


def test_the_stores_clock_is_that_of_its_objects(store: Store, folder: str) -> None:
    before = store.now()
    store.put(f"{folder}a", b"")
    [listed] = store.list(folder)
    after = store.now()
    assert before is not None
    assert after is not None
    assert listed.modified is not None
    second = timedelta(seconds=1)  # HTTP's dates are whole seconds
    assert before - second <= listed.modified <= after + second
    assert not [*store.uploads("")]


def test_a_listing_begins_at_any_letter(store: Store, folder: str) -> None:
    store.put(f"{folder}segments/1", b"")
    store.put(f"{folder}segments-2", b"")
    assert keys(store, f"{folder}seg") == [f"{folder}segments-2", f"{folder}segments/1"]
    assert keys(store, f"{folder}segments/") == [f"{folder}segments/1"]


# -- deletes -------------------------------------------------------------------------------


def test_deletes_are_final_and_repeatable(store: Store, folder: str) -> None:
    names = [f"{folder}{n % 3}/{n}" for n in range(30)]
    for name in names:
        store.put(name, b"x")
    store.delete(iter(names[:20]))
    assert keys(store, folder) == sorted(names[20:])
    store.delete([*names, f"{folder}never"])
    store.delete([])
    assert not keys(store, folder)
    with pytest.raises(ObjectMissing):
        store.get(names[0])
    store.put(names[0], b"again")
    assert keys(store, folder) == [names[0]]


def test_writes_and_deletes_of_one_folder_meet(place: Place, store: Store, folder: str) -> None:
    if place.kind == "versitygw":  # it removes an empty directory under a writer, and refuses that
        store.put(f"{folder}deep/er/stays", b"")

    def work(number: int) -> None:
        for turn in range(10):
            key = f"{folder}deep/er/{number}-{turn}"
            store.put(key, b"x")
            assert read(store, key) == b"x"
            store.delete([key])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    store.delete([f"{folder}deep/er/stays"])
    assert not keys(store, folder)


# -- keys ----------------------------------------------------------------------------------

BAD_KEYS = ["", "/a", "a/", "a//b", "../a", "a/../../b", "./a", "a/.", "a\n", "\0", "x" * 300]
BAD_KEYS += [".upload-0123456789abcdef-x", "a/.upload-b", "/".join(["abc"] * 300)]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_keys_that_are_none_are_refused(store: Store, folder: str, key: str) -> None:
    for refused in (
        lambda: store.put(key, b""),
        lambda: store.get(key),
        lambda: store.upload(key),
        lambda: store.delete([key]),
    ):
        with pytest.raises(ConfigError, match="key"):
            refused()


@pytest.mark.parametrize("prefix", ["/", "../", "a//", "a/../b", "\n"])
def test_beginnings_of_no_key_are_refused(store: Store, prefix: str) -> None:
    with pytest.raises(ConfigError, match="beginning"):
        keys(store, prefix)
    with pytest.raises(ConfigError, match="beginning"):
        list(store.uploads(prefix))


PART = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20)


@given(parts=st.lists(PART, min_size=1, max_size=4), data=st.binary(max_size=100))
@settings(max_examples=20)
def test_any_other_key_is_taken(store: Store, folder: str, parts: list[str], data: bytes) -> None:
    key = f"{folder}{secrets.token_hex(4)}/" + "/".join(
        "." + p.replace("/", "|") + "." for p in parts
    )
    store.put(key, data)
    assert read(store, key) == data
    assert keys(store, key) == [key]
    store.delete([key])
    assert not keys(store, folder)


# -- the store itself ----------------------------------------------------------------------


def test_capabilities_are_those_of_the_documents(place: Place) -> None:
    lacks = {
        "file": {"conditional_replace"},
        "arrow": {"conditional_put", "conditional_replace", "checks_checksums"},
        "moto": {"checks_checksums"},
        "versitygw": set(),
        "minio": {"lists_uploads"},
    }
    if place.kind not in lacks:
        pytest.skip("a server of your own")
    found = asdict(place.store().capabilities)
    assert {name for name, has in found.items() if not has} == lacks[place.kind]


def test_capabilities_can_be_shown(store: Store) -> None:
    shown = asdict(store.capabilities)
    assert set(map(type, shown.values())) == {bool}
    assert "conditional_put" in str(store.capabilities)
    assert not keys(store, "")
    assert store.url in repr(store)


def test_the_meter_is_told(place: Place, folder: str) -> None:
    meter = Tally()
    store = place.store(meter=meter)
    store.put(f"{folder}a", b"four")
    assert (Verb.PUT, "ok", f"{folder}a", 4) in meter.seen
    read(store, f"{folder}a")
    with pytest.raises(ObjectMissing):
        store.get(f"{folder}b")
    keys(store, folder)
    assert list(store.uploads(folder)) == []
    store.delete([f"{folder}a"])
    assert meter.verbs("ok") == [Verb.PUT, Verb.GET, Verb.LIST, Verb.LIST_UPLOADS, Verb.DELETE]
    [failed] = [seen for seen in meter.seen if seen[1] != "ok"]
    assert failed[0] == Verb.GET


def test_closing_twice_is_fine(place: Place, folder: str) -> None:
    store = place.store()
    store.put(f"{folder}a", b"x")
    store.close()
    store.close()
    place.store().delete([f"{folder}a"])


class Ended:
    """A `crossdock.cancel.Stop` that ends a writer after some looks."""

    def __init__(self, looks: int) -> None:
        self.event = threading.Event()
        self.looks = looks

    def check(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise Closed("ended")


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_a_writer_that_is_ended_writes_nothing(store: Store, folder: str, looks: int) -> None:
    source = RandomSource(4 * MIB)
    stopped = store.stopped_by(Ended(looks))
    with pytest.raises(Closed):
        stopped.put(f"{folder}whole", source)
    assert not keys(store, folder)
    assert not list(store.uploads(folder))
    store.put(f"{folder}other", b"data")
    stopped.delete([f"{folder}other"])
    assert not keys(stopped, folder), "it may delete and read"
    assert stopped.capabilities == store.capabilities


def test_a_writer_of_parts_that_is_ended_leaves_no_upload(store: Store, folder: str) -> None:
    stop = Ended(10_000)
    with store.stopped_by(stop).upload(f"{folder}parts") as upload:
        for _ in range(7):
            upload.write(bytes(5 * MIB))
        stop.looks = 0
        with pytest.raises(Closed):
            upload.complete()
    assert not keys(store, folder)
    assert not list(store.uploads(folder))
