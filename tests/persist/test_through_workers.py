"""What is in the store is read with a job's token alone, through any worker that has the store."""

import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from persisted import Blocks, blocks_of, flip_byte, objects, write

import crossdock
from crossdock import BlocksLost, Unavailable, View
from crossdock.statistics import Tier
from crossdock.store.file import FileStore
from crossdock.store.layout import ShuffleLayout
from crossdock.store.through import WorkerStore
from crossdock.views import ShuffleKey
from crossdock.wire.tokens import Right
from harness import KEY, Answer, StartWorker, WorkerProcess, connect_all, eventually, silent

OPTIONS = crossdock.Options(
    frame_bytes=2**18, buffer_bytes=2**20, deadline_seconds=60, loss_after_seconds=1,
    connect_seconds=1, stall_seconds=5, read_batch_bytes=2**20,
)  # fmt: skip
SMALL = {"segment_bytes": 2 * 2**20, "max_frame_bytes": 2**20}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def workers(start_worker: StartWorker, directory: Path) -> list[WorkerProcess]:
    return [start_worker(key=KEY, store=directory.as_uri(), **SMALL) for _ in range(2)]


@contextmanager
def reader(
    workers: list[WorkerProcess], uid: str, options: crossdock.Options = OPTIONS
) -> Iterator[crossdock.Job]:
    """Attach with a token that only reads."""
    token = workers[0].token(uid, [Right.READ])
    with connect_all(workers, token=token, options=options) as cluster:
        yield cluster.job(uid)


def persisted(workers: list[WorkerProcess], uid: str, **size: int) -> Blocks:
    """Persist a shuffle "words" of 20 partitions and 8 maps; return its blocks."""
    with (
        connect_all(workers, options=OPTIONS) as cluster,
        cluster.job(uid, owner="runner", lease_seconds=3600) as job,
    ):
        shuffle = job.shuffle("words", partitions=20, maps=8)
        for m in range(8):
            write(shuffle, m, **size)
        view = shuffle.view()
        view.persist()
        return blocks_of(view)


def registered(workers: list[WorkerProcess], uid: str) -> None:
    with connect_all(workers, options=OPTIONS) as cluster:
        cluster.job(uid, owner="runner", lease_seconds=3600).close()


def words(job: crossdock.Job) -> View:
    return job.shuffle("words", partitions=20).view(dict.fromkeys(range(8), 0))


def test_a_fresh_worker_reads_all_of_the_store_for_who_has_a_token(
    workers: list[WorkerProcess], start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    expected = persisted(workers, job_uid, size=60_000)
    for worker in workers:
        worker.kill9()
    fresh = start_worker(key=KEY, store=directory.as_uri(), **SMALL)
    registered([fresh], job_uid)
    with reader([fresh], job_uid) as job:
        view = words(job)
        assert blocks_of(view) == expected
        assert blocks_of(view, partitions=range(3, 9), maps=range(2, 5)) == [
            b for b in expected if 3 <= b[0] < 9 and 2 <= b[1] < 5
        ]


def through_store(worker: WorkerProcess) -> float:
    """Return the bytes that a worker served through from the store."""
    text = worker.request("GET", "/metrics", token=worker.admin_token()).body.decode()
    [line] = [x for x in text.splitlines() if x.startswith('crossdock_served_bytes_total{tier="st')]
    return float(line.split()[1])


def fresh_pair(
    workers: list[WorkerProcess], start_worker: StartWorker, directory: Path, uid: str
) -> list[WorkerProcess]:
    """Replace the workers by two with empty disks and the same store, which know the job."""
    for worker in workers:
        worker.kill9()
    first = start_worker(key=KEY, store=directory.as_uri(), **SMALL)
    second = start_worker(key=KEY, store=directory.as_uri(), peers=first.url, **SMALL)
    registered([first, second], uid)
    return [first, second]


def test_a_reader_survives_the_death_of_the_worker_that_it_reads_through(
    workers: list[WorkerProcess], start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    expected = persisted(workers, job_uid, size=150_000)
    pair = fresh_pair(workers, start_worker, directory, job_uid)
    frugal = replace(OPTIONS, read_ahead_bytes=2**20)
    with reader(pair, job_uid, frugal) as job:
        view = words(job)
        before = [through_store(w) for w in pair]
        reading = iter(view.read())
        found = [next(reading) for _ in range(5)]
        served = [through_store(w) - b for w, b in zip(pair, before, strict=True)]
        assert sum(served) < sum(len(b[2]) for b in expected) / 2, "most is still to come"
        pair[served.index(max(served))].kill9()
        found += reading
        assert [(b.partition, b.map_id, bytes(b.data), b.rows) for b in found] == expected
        seen = job.cluster.statistics()
        assert seen[Tier.STORE].bytes >= sum(len(b[2]) for b in expected)
        assert seen[Tier.STORE].misses == 0, "each range went on elsewhere at the byte reached"
        assert seen[Tier.WORKER].requests == seen[Tier.REPLICA].requests == 0


def test_a_worker_that_falls_silent_is_not_waited_for(
    workers: list[WorkerProcess], start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    expected = persisted(workers, job_uid, size=60_000)
    pair = fresh_pair(workers, start_worker, directory, job_uid)
    patient = replace(OPTIONS, stall_seconds=60.0)
    with reader(pair, job_uid, patient) as job:
        view = words(job)
        with silent(pair[0]):
            began = time.monotonic()
            assert blocks_of(view) == expected
            assert time.monotonic() - began < patient.stall_seconds, (
                "it was asked for once more elsewhere"
            )


def test_damage_in_the_store_is_named_and_another_copy_taken(
    workers: list[WorkerProcess], start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    expected = persisted(workers, job_uid)
    segment = objects(directory, "segments")[0]
    data = segment.read_bytes()
    block = next(b for b in expected if len(b[2]) > 2000 and b[2][:1000] in data)
    at = data.index(block[2][:1000])
    flip_byte(segment, at + 20)
    key = str(segment.relative_to(directory))
    for worker in workers:
        worker.kill9()
    fresh = start_worker(key=KEY, store=directory.as_uri(), **SMALL)
    registered([fresh], job_uid)
    with reader([fresh, *workers], job_uid) as job:
        with pytest.raises(BlocksLost) as caught:
            eventually(lambda: blocks_of(words(job)), what="the workers' loss")
        [missing] = caught.value.missing
        assert (missing.map_id, missing.attempt) == (block[1], 0)
        assert f"{key} at offset {at}" in missing.reason
        assert f"map {block[1]} attempt 0 partition {block[0]}" in missing.reason
        for worker in workers:
            worker.start()
        assert blocks_of(words(job)) == expected


def test_a_segment_that_is_gone_is_lost_by_the_exact_maps_inside(
    workers: list[WorkerProcess], start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    with (
        connect_all(workers[:1], options=OPTIONS) as cluster,
        cluster.job(job_uid, owner="runner", lease_seconds=3600) as job,
    ):
        shuffle = job.shuffle("gone", partitions=4, maps=4)
        for m in range(4):  # map m has data in partition m alone, more than fits one segment
            with shuffle.writer(map_id=m, attempt=0) as writer:
                for _ in range(3):
                    writer.write(m, random.Random(m).randbytes(700_000), rows=1)
        view = shuffle.view()
        view.persist()
        expected = blocks_of(view)
    kept = {p: p.read_bytes() for p in objects(directory, "segments")}
    gone, data = next(iter(kept.items()))
    inside = {m for _, m, block, _ in expected if block[:60] in data or block[-60:] in data}
    pair = fresh_pair(workers, start_worker, directory, job_uid)
    with reader(pair, job_uid) as job:
        stored = job.shuffle("gone", partitions=4).view(dict.fromkeys(range(4), 0))
        gone.unlink()
        with pytest.raises(BlocksLost) as caught:
            blocks_of(stored)
        assert {m.map_id for m in caught.value.missing} == inside
        others = sorted({p for p, m, *_ in expected if m not in inside})
        assert others, "not all is lost"
        for p in others:
            assert blocks_of(stored, partitions=range(p, p + 1)) == [
                b for b in expected if b[0] == p
            ]


def test_what_only_an_absent_worker_could_read_of_the_store_is_not_lost(
    start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    with_store = start_worker(key=KEY, store=directory.as_uri())
    expected = persisted([with_store], job_uid)  # before the other is met, and takes frames too
    without = start_worker(key=KEY, peers=with_store.url)
    registered([without], job_uid)
    hasty = replace(OPTIONS, deadline_seconds=3.0)
    with reader([with_store, without], job_uid, hasty) as job:
        assert blocks_of(words(job)) == expected
        for gone in (with_store, without):
            gone.kill9()
            with pytest.raises(Unavailable, match="no worker reads the store for us"):
                words(job)
        for worker in (with_store, without):
            worker.start()
        assert blocks_of(words(job)) == expected


def test_a_cluster_without_a_store_loses_what_its_workers_lose(
    start_worker: StartWorker, job_uid: str
) -> None:
    first, second = start_worker(key=KEY), start_worker(key=KEY)
    registered([first, second], job_uid)
    with connect_all([first], options=OPTIONS) as cluster:
        write(cluster.job(job_uid).shuffle("words", partitions=20), 0)
    with reader([first, second], job_uid) as job:
        first.kill9()
        with pytest.raises(BlocksLost):
            job.shuffle("words", partitions=20).view({0: 0})


# -- the routes ----------------------------------------------------------------------------


def test_a_token_opens_the_objects_of_its_job_and_cluster_alone(
    start_worker: StartWorker, directory: Path
) -> None:
    worker = start_worker(key=KEY, store=directory.as_uri())
    other = start_worker(key=KEY, store=directory.as_uri(), cluster="other")
    for uid in ("job-a", "job-b"):
        persisted([worker], uid)
    registered([other], "job-a")
    token = worker.token("job-a", [Right.READ])
    base = "/v1/jobs/job-a/shuffles/words/0/objects"
    listed = worker.request("GET", base, token=token).json()["objects"]
    keys = [key for key, _, _ in listed]
    assert any(key.startswith("segments/") for key in keys)
    assert any(key.startswith("records/") for key in keys)
    [foreign] = objects(directory, "job-b/")[:1]
    foreign_key = str(foreign.relative_to(directory))
    hash_b = foreign_key.split("/")[2]
    secret = foreign.read_bytes()[:200]
    whole = {"Range": "bytes=0-"}
    for path in [
        f"{base}/{foreign_key}",
        f"{base}/../../../{foreign_key}",
        f"{base}/..%2f..%2f..%2f..%2f{foreign_key}",
        f"{base}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/job-b/{hash_b}/words/0/views/x",
        f"{base}//{foreign_key}",
        f"{base}/segments/../../../../../{foreign_key}",
        f"{base}/.%2e%2f%00",
        *(f"/v1/jobs/job-b/shuffles/words/0/objects/{foreign_key.split('/', 5)[5]}",),
        "/v1/jobs/..%2fjob-b/shuffles/words/0/objects/x",
        "/v1/jobs/job-a/shuffles/..%2f..%2fjob-b/0/objects/x",
    ]:
        answer = worker.request("GET", path, token=token, headers=whole)
        assert answer.status in {400, 403, 404}, (path, answer)
        assert secret not in answer.body
    for query in [
        "prefix=../",
        "prefix=..%2f",
        "prefix=%2f",
        "after=../a",
        "prefix=../../../job-b",
    ]:
        assert worker.request("GET", f"{base}?{query}", token=token).status == 400, query
    assert worker.request("GET", base.replace("job-a", "job-b"), token=token).status == 403
    assert worker.request("GET", f"{base}/{keys[0]}", headers=whole).status == 401
    elsewhere = other.request("GET", base, token=token).json()
    assert elsewhere == {"objects": [], "more": False}
    assert other.request("GET", f"{base}/{keys[0]}", token=token, headers=whole).status == 404


def test_ranges_etags_and_what_is_not_there(start_worker: StartWorker, directory: Path) -> None:
    worker = start_worker(store=directory.as_uri(), read_batch_bytes=50_000)
    persisted([worker], "job-r")
    base = "/v1/jobs/job-r/shuffles/words/0/objects"
    rows = worker.request("GET", f"{base}?prefix=segments/").json()["objects"]
    key, size, etag = rows[0]
    data = next(p for p in objects(directory) if str(p).endswith(key)).read_bytes()
    assert len(data) == size > 100_000

    def ask(span: str | None, **headers: str) -> Answer:
        given = {} if span is None else {"Range": span}
        return worker.request("GET", f"{base}/{key}", headers={**given, **headers})

    part = ask("bytes=10-19", **{"If-Match": f'"{etag}"'})
    assert (part.status, part.body) == (206, data[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    assert part.headers["etag"] == f'"{etag}"'
    long = ask("bytes=7-")
    assert long.body == data[7:50_007], "no more than one answer may have"
    assert long.headers["content-range"] == f"bytes 7-50006/{size}"
    assert ask(f"bytes={size - 3}-").body == data[-3:]
    for answer in (ask("bytes=0-1", **{"If-Match": '"x"'}), ask(f"bytes={size}-"),
                   ask(f"bytes={size - 5}-{size}")):  # fmt: skip
        assert (answer.status, answer.code) == (500, "object_damaged")
    for span in (None, "bytes=-5", "bytes=5-4", "bytes=a-b", "items=0-1", f"bytes=0-{2**70}"):
        assert (ask(span).status, ask(span).code) == (400, "protocol"), span
    nothing = worker.request("GET", f"{base}/segments/x/0", headers={"Range": "bytes=0-1"})
    assert (nothing.status, nothing.code) == (404, "object_missing")


def test_a_listing_goes_on_behind_a_key(start_worker: StartWorker, directory: Path) -> None:
    worker = start_worker(store=directory.as_uri())
    registered([worker], "job-l")
    layout = ShuffleLayout.of("default", ShuffleKey("job-l", "many", 0))
    store = FileStore(directory)
    keys = [layout.record(f"r{i:04}") for i in range(2_100)]
    for key in keys:
        store.put(key, b"x")
    with reader([worker], "job-l") as job:
        through = WorkerStore(job.cluster.pool, job.cluster.stores)
        assert [info.key for info in through.list(layout.records)] == keys
        behind = through.list(layout.records, after=keys[1_500])
        assert [info.key for info in behind] == keys[1_501:]


def test_ended_jobs_and_released_shuffles_do_not_show_their_objects(
    start_worker: StartWorker, directory: Path
) -> None:
    worker = start_worker(store=directory.as_uri())
    persisted([worker], "job-e")
    base = "/v1/jobs/job-e/shuffles/words/0/objects"
    [(key, *_), *_] = worker.request("GET", base).json()["objects"]

    def codes() -> set[tuple[int, str]]:
        answers = [
            worker.request("GET", path, headers={"Range": "bytes=0-"})
            for path in (base, f"{base}/{key}")
        ]
        return {(a.status, a.code) for a in answers}

    worker.request("DELETE", "/v1/jobs/job-e/shuffles/words/0")
    assert codes() == {(410, "shuffle_released")}
    worker.request("POST", "/v1/jobs/job-e/fence")
    assert codes() == {(410, "job_fenced")}
    base = base.replace("job-e", "job-x")
    assert codes() == {(404, "job_unknown")}


def test_a_worker_without_a_store_says_so_and_others_are_told(
    worker: WorkerProcess, start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    registered([worker], job_uid)
    answer = worker.request("GET", f"/v1/jobs/{job_uid}/shuffles/words/0/objects")
    assert (answer.status, answer.code) == (404, "no_store")
    assert worker.get_json("/v1/workers")["self"]["store"] is False
    other = start_worker(store=directory.as_uri())
    assert other.get_json("/v1/workers")["self"]["store"] is True


def test_a_store_that_is_away_is_not_now(
    start_worker: StartWorker, job_uid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    worker = start_worker(
        store="s3://bucket/prefix", store_option=f"endpoint_url=http://127.0.0.1:{port}"
    )
    registered([worker], job_uid)
    answer = worker.request("GET", f"/v1/jobs/{job_uid}/shuffles/words/0/objects?prefix=records/")
    assert (answer.status, answer.code) == (503, "store_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
