"""Jobs deleted at real workers and on real servers, up to the proof; and what that costs."""

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from deletions import client, files, worker_options, write
from places import Tally
from servers import ACCESS_KEY, SECRET_KEY, S3Server, s3_options

import crossdock
from crossdock.cancel import Cancel
from crossdock.cleanup.deleting import (
    Deleted,
    DeletionOptions,
    NoWorkers,
    Told,
    clear_released,
    delete_job,
)
from crossdock.cleanup.sweeping import Rules, sweep
from crossdock.errors import CleanupUnfinished, Closed, StaleEpoch
from crossdock.lifecycle.stopping import Ender
from crossdock.lifecycle.sweep import Verdict
from crossdock.lifecycle.timing import Timing
from crossdock.store.api import Store, StoreOptions, Verb
from crossdock.store.layout import ShuffleLayout
from crossdock.store.opening import open_store
from crossdock.views import ShuffleKey
from crossdock_worker.noted import NotedStore
from crossdock_worker.writes import Writes
from harness import StartWorker, eventually, silent

AT_ONCE = Timing(settle_seconds=0.0, relist_seconds=0.0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


# -- what a client's job costs, and leaves ---------------------------------------------------


def test_a_job_that_nobody_persisted_costs_the_store_no_request(
    start_worker: StartWorker, moto: S3Server, job_uid: str
) -> None:
    url, options = f"s3://{moto.bucket}/untouched", s3_options(moto)
    worker = start_worker(**worker_options(url, options))
    with client([worker], url, options) as cluster:
        job = cluster.job(job_uid, owner="runner")
        write(job)
        worker.restart()  # it still knows
        deleted = job.end()
    assert (deleted.requests, deleted.in_store) == (0, False)
    assert not files(worker.data_dir / "jobs")


@pytest.mark.parametrize("kind", ["moto", "versitygw"])
def test_a_job_of_one_segment_is_deleted_by_seven_requests(
    request: pytest.FixtureRequest, start_worker: StartWorker, kind: str, job_uid: str
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    url, options = f"s3://{server.bucket}/{job_uid}", s3_options(server)
    worker = start_worker(**worker_options(url, options))
    with client([worker], url, options) as cluster:
        job = cluster.job(job_uid, owner="runner")
        write(job).persist()
        deleted = job.end()
    assert deleted.in_store
    assert (deleted.objects, deleted.uploads) == (3, 0)  # segment, record, manifest
    assert deleted.nbytes > 0
    assert deleted.requests == 7
    assert deleted.seconds > 0.3
    assert not deleted.silent
    assert not files(worker.data_dir / "jobs")
    store = open_store(url, options)
    assert not list(store.list(""))
    store.close()


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_written_long_ago_has_settled(
    start_worker: StartWorker, directory: Path, job_uid: str, *, restarted: bool
) -> None:
    """If all workers say so: one that has just begun cannot tell what was sent before."""
    settle = 4.0
    workers = [start_worker(store=directory.as_uri(), store_settle_seconds=settle) for _ in "ab"]
    with client(workers, directory.as_uri(), store_settle_seconds=settle) as cluster:
        job = cluster.job(job_uid, owner="runner")
        write(job).persist()
        written = time.monotonic()
        if restarted:
            workers[0].restart()
        else:
            eventually(lambda: time.monotonic() > written + settle + 0.1)
        stored = len(files(directory))
        deleted = job.end()
    assert deleted.objects == stored > 0
    assert (deleted.seconds > settle) is restarted
    assert not files(directory)


def test_a_worker_remembers_that_it_has_written(
    start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    worker = start_worker(store=directory.as_uri())
    with client([worker], directory.as_uri()) as cluster:
        job = cluster.job(job_uid, owner="runner")
        write(job).persist()
        worker.restart()
        assert job.end().objects == 3
    assert not files(directory)


def test_ending_again_is_fine_and_looks_into_the_store(
    start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    worker = start_worker(store=directory.as_uri())
    with client([worker], directory.as_uri()) as cluster:
        job = cluster.job(job_uid, owner="runner")
        write(job).persist()
        assert job.end().objects == 3
        again = job.end()
    assert (again.in_store, again.objects) == (True, 0)


def test_whoever_attaches_and_ends_a_job_looks_into_the_store(
    start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    """It has not met all workers that there were."""
    worker = start_worker(store=directory.as_uri())
    with client([worker], directory.as_uri()) as cluster:
        owner = cluster.job(job_uid, owner="runner")
        write(owner)
        owner.close()
        deleted = cluster.job(job_uid).end()
    assert deleted.in_store


def test_a_worker_that_came_and_went_may_have_left_something(
    start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    options = {
        "store": directory.as_uri(), "store_settle_seconds": 0.3, "peers_interval_seconds": 0.1,
    }  # fmt: skip
    first = start_worker(**options)
    second = start_worker(peers=first.url, **options)
    with client([first, second], directory.as_uri()) as cluster:
        job = cluster.job(job_uid, owner="runner", lease_seconds=2)
        view = write(job)
        view.persist()
        second.kill9()
        first.restart()  # forgets whom it met
        deleted = job.end()
    assert deleted.in_store
    assert not files(directory)


def test_without_a_way_to_the_store_the_files_go(
    start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    worker = start_worker(store=directory.as_uri())
    with worker.connect() as cluster:
        job = cluster.job(job_uid, owner="runner")
        write(job).persist()
        deleted = job.end()
    assert not deleted.in_store
    assert not files(worker.data_dir / "jobs")


def test_a_worker_that_does_not_answer_is_waited_for_a_lease(
    start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    options = {"store": directory.as_uri(), "store_settle_seconds": 0.3}
    workers = [start_worker(**options) for _ in range(2)]
    with client(workers, directory.as_uri(), stall_seconds=0.5) as cluster:
        job = cluster.job(job_uid, owner="runner", lease_seconds=2)
        write(job).persist()
        with silent(workers[1]):
            deleted = job.end()
    assert len(deleted.silent) == 1
    assert deleted.seconds > 2
    assert not files(directory)


def test_a_worker_that_does_not_answer_for_longer_is_named(
    start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    workers = [start_worker(store=directory.as_uri()) for _ in range(2)]
    away = workers[1].get_json("/v1/workers")["self"]["id"]
    hasty = {"stall_seconds": 0.3, "deadline_seconds": 1}
    with (
        client(workers, directory.as_uri()) as cluster,
        client(workers, directory.as_uri(), **hasty) as other,
    ):
        job, same = (
            each.job(job_uid, owner="runner", lease_seconds=3600) for each in (cluster, other)
        )
        write(job).persist()
        with silent(workers[1]), pytest.raises(CleanupUnfinished, match=away):
            same.end()
        assert job.end().objects == 0  # what could go had gone
    assert not files(directory)


def test_a_job_that_was_taken_over_is_not_deleted(
    start_worker: StartWorker, directory: Path, job_uid: str
) -> None:
    worker = start_worker(store=directory.as_uri())
    with client([worker], directory.as_uri()) as cluster:
        job = cluster.job(job_uid, owner="runner")
        write(job).persist()
        job.close()
        with cluster.job(job_uid, owner="runner", epoch=1) as successor:
            with pytest.raises(StaleEpoch):
                job.end()
            assert files(directory)
            assert successor.end().in_store
    assert not files(directory)


# -- the procedure by itself -----------------------------------------------------------------


def put_run(store: Store, job: str, *, segments: int = 2, intent: bool = False) -> ShuffleLayout:
    """Write what a persist run writes."""
    layout = ShuffleLayout.of("c", ShuffleKey(job, "words", 0))
    if intent:
        store.put(layout.intent("run"), b"{}")
    for ordinal in range(segments):
        store.put(layout.segment("run", ordinal), b"x" * 10)
    store.put(layout.record("run"), b"record")
    return layout


def deletion(store: Store, **more: object) -> DeletionOptions:
    given: dict[str, object] = {
        "cluster": "c", "store": lambda: store, "timing": AT_ONCE, "deadline_seconds": 10,
    }  # fmt: skip
    return DeletionOptions(**{**given, **more})  # type: ignore[arg-type]


def delete(store: Store, job: str, **more: object) -> Deleted:
    options = deletion(store, **more)
    return delete_job(job, NoWorkers(), options, ender=Ender.OWNER, lease_seconds=60)


def test_intents_go_last(moto: S3Server, job_uid: str) -> None:
    tally = Tally()
    store = open_store(f"s3://{moto.bucket}/{job_uid}", s3_options(moto), meter=tally)
    put_run(store, "j", intent=True)
    assert store.capabilities.lists_uploads
    tally.clear()
    delete(store, "j")
    deletes = [key for verb, _, key, _ in tally.seen if verb is Verb.DELETE]
    assert "/intents/" in deletes[-1]
    assert "/records/" in deletes[0]
    last = len(tally.seen) - 1 - tally.verbs()[::-1].index(Verb.DELETE)
    assert tally.verbs()[last + 1 :] == [Verb.LIST_UPLOADS, Verb.LIST] * 2
    assert not list(store.list(""))
    store.close()


class OneIsSilent(NoWorkers):
    """Two workers, of which one never answers."""

    told = 0

    def names(self) -> frozenset[str]:
        return frozenset({"here", "away"})

    def stop(self, names: frozenset[str]) -> Told:
        return Told(stopped=names & {"here"})

    def emptied(self) -> None:
        self.told += 1


def test_what_cannot_be_proved_yet_is_given_up_soon_and_not_listed_again(
    moto: S3Server, job_uid: str
) -> None:
    """Deadlines are for what takes long; a worker that is away may be so for days."""
    tally, workers = Tally(), OneIsSilent()
    store = open_store(f"s3://{moto.bucket}/{job_uid}", s3_options(moto), meter=tally)
    put_run(store, "j")
    for emptied in (False, True):
        tally.clear()
        how = deletion(store, deadline_seconds=300, silence_seconds=0.5, emptied=emptied)
        began = time.monotonic()
        with pytest.raises(CleanupUnfinished, match="do not answer: away"):
            clear_released({"j": {"words": range(1)}}, workers, how)
        assert time.monotonic() - began < 60
        assert not list(open_store(store.url, s3_options(moto)).list(""))
        assert workers.told == 1
        assert bool(tally.seen) is not emptied
    store.close()


SERVERS = ["moto", "versitygw", pytest.param("minio", marks=pytest.mark.servers)]


@pytest.fixture
def server(request: pytest.FixtureRequest, kind: str) -> S3Server:
    found: S3Server = request.getfixturevalue(kind)
    return found


@pytest.mark.parametrize("kind", SERVERS)
def test_nothing_is_left_on_any_server(server: S3Server, job_uid: str) -> None:
    """Also where uploads cannot be listed by prefix: there intents say where to look."""
    before = server.left()
    url, options = f"s3://{server.bucket}/{job_uid}", s3_options(server, part_bytes=5 * 2**20)
    store = open_store(url, options)
    layout = put_run(store, "j", segments=1, intent=True)
    kept = ShuffleLayout.of("c", ShuffleKey("other", "words", 0)).segment("run", 0)
    with store.upload(layout.segment("run", 2)) as lost, store.upload(kept) as upload:
        for each in (lost, upload):
            each.write(bytes(6 * 2**20))
        eventually(lambda: len(server.left() - before) >= 5, what="parts of both uploads")
        done = delete(store, "j")
        assert (done.uploads, done.objects) == (1, 3)
        assert list(store.uploads(kept))
        assert upload.complete().size == 6 * 2**20
    assert [info.key for info in store.list("")] == [kept]
    store.delete([kept])
    store.close()
    assert server.left() <= before


def test_a_job_is_deleted_in_all_buckets(moto: S3Server, job_uid: str) -> None:
    """The list of buckets may have changed while it lived."""
    options = s3_options(moto)
    first = open_store(f"s3://{moto.bucket}/{job_uid}", options)
    bucket = f"second-{secrets.token_hex(4)}"
    client = boto3.client(
        "s3", endpoint_url=moto.endpoint, region_name=moto.region,
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
    )  # fmt: skip
    client.create_bucket(Bucket=bucket)
    client.close()
    second = open_store(f"s3://{bucket}/{job_uid}", options)
    for store in (first, second):
        put_run(store, "j")
    # As a worker has it, which deletes what is abandoned.
    both = NotedStore(
        open_store(f"s3://{moto.bucket},{bucket}/{job_uid}", options), lambda _job: None, Writes()
    )
    assert delete(both, "j").objects == 6
    for store in (first, second):
        assert not list(store.list(""))
        store.close()
    both.close()


def test_the_other_of_two_clusters_in_a_bucket_loses_nothing(
    start_worker: StartWorker, versitygw: S3Server, job_uid: str
) -> None:
    url, options = f"s3://{versitygw.bucket}/{job_uid}", s3_options(versitygw)
    workers = {c: start_worker(cluster=c, **worker_options(url, options)) for c in ("one", "two")}
    stop = threading.Event()

    def keep_busy(cluster: crossdock.Cluster, name: str) -> list[crossdock.Job]:
        """Persist one job after the other, until told to stop."""
        jobs = []
        while len(jobs) < 2 or not stop.is_set():
            job = cluster.job(f"{job_uid}-{len(jobs)}", owner="runner")  # the same uids in both
            write(job, name).persist()
            jobs.append(job)
        return jobs

    def end_all(cluster: crossdock.Cluster) -> None:
        """End and sweep, while the other cluster works."""
        for number in range(3):
            job = cluster.job(f"{job_uid}-{number}", owner="runner")
            write(job).persist()
            assert job.end().objects == 3
        store = open_store(url, options)
        put_run(store, "left", segments=20)
        gone = sweep([store], rules_of("one"), delete=True, fence=None, cancel=Cancel("test"))
        assert gone.found.keys() <= {Verdict.ORPHAN, Verdict.YOUNG}
        store.close()

    with (
        client([workers["one"]], url, options, store_cluster="one") as one,
        client([workers["two"]], url, options, store_cluster="two") as two,
        ThreadPoolExecutor(2) as pool,
    ):
        busy = pool.submit(keep_busy, two, "words")
        try:
            end_all(one)
        finally:
            stop.set()
        jobs = busy.result()
        assert len(jobs) > 1
        workers["two"].kill9()  # what is read now is in the store
        store = open_store(url, options)
        assert not list(store.list("one/"))
        for job in jobs:
            view = crossdock.open_view(
                url, job.uid, "words", manifest_of(store, job.uid), cluster="two",
                store_options=options,
            )  # fmt: skip
            with view:
                read = [(b.partition, b.map_id, bytes(b.data)) for b in view.read()]
            assert read == [(p, m, f"{m} {p}".encode()) for p in range(3) for m in range(2)]
        store.close()


def manifest_of(store: Store, job: str) -> str:
    """Return the id of the only view of a job."""
    [key] = [i.key for i in store.list(f"two/{job}/") if "/views/" in i.key]
    return key.rpartition("/")[2]


def rules_of(cluster: str) -> Rules:
    return Rules(
        cluster=cluster, grace_seconds=0.0, timing=AT_ONCE, live=frozenset(), asked=time.monotonic()
    )


def test_another_job_and_another_cluster_lose_nothing(moto: S3Server, job_uid: str) -> None:
    store = open_store(f"s3://{moto.bucket}/{job_uid}", s3_options(moto))
    for other in ("c/jj/0000/words/0/segments/r/000000", "cc/j/0000/words/0/segments/r/000000"):
        store.put(other, b"keep")
    put_run(store, "j")
    delete(store, "j")
    assert [i.key for i in store.list("")] == [
        "c/jj/0000/words/0/segments/r/000000", "cc/j/0000/words/0/segments/r/000000",
    ]  # fmt: skip
    store.close()


def test_deleting_can_be_cancelled(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    put_run(store, "j")
    cancel = Cancel("told to")

    def tell() -> None:
        eventually(lambda: not files(tmp_path), what="all deleted, and not proved yet")
        cancel.set()

    teller = threading.Thread(target=tell)
    teller.start()
    with pytest.raises(Closed, match="told to"):
        delete(store, "j", cancel=cancel, timing=Timing(settle_seconds=600), deadline_seconds=600)
    teller.join()
    assert not files(tmp_path)


def test_a_store_that_is_away_is_named_with_what_is_left(job_uid: str) -> None:
    options = StoreOptions(
        endpoint_url="http://127.0.0.1:9", region="us-east-1", path_style=True, deadline_seconds=0.2
    )
    store = open_store("s3://bucket/prefix", options)
    with pytest.raises(CleanupUnfinished, match="s3://bucket/prefix/c/j/") as caught:
        delete(store, "j", deadline_seconds=0.5)
    assert "audit" in caught.value.hint
    store.close()
