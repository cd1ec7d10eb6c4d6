"""Several buckets share the jobs, and look like one store."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from places import read
from servers import ACCESS_KEY, SECRET_KEY, S3Server, s3_options

import crossdock
from crossdock.errors import ProtocolError
from crossdock.store.api import Store
from crossdock.store.opening import open_store, store_for_job
from harness import WorkerProcess, connect_all

BUCKETS = ("first", "second", "third")


@pytest.fixture
def url(moto: S3Server) -> str:
    """Three buckets, and a prefix that nobody uses."""
    client = boto3.client(
        "s3", endpoint_url=moto.endpoint, region_name=moto.region,
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
    )  # fmt: skip
    for bucket in BUCKETS:
        client.create_bucket(Bucket=bucket)
    client.close()
    return f"s3://{','.join(BUCKETS)}/test-{secrets.token_hex(6)}"


@pytest.fixture
def store(moto: S3Server, url: str) -> Iterator[Store]:
    opened = open_store(url, s3_options(moto))
    yield opened
    opened.close()


def keys_of(job: int) -> list[str]:
    return [f"c/job-{job}/ab12/words/0/segments/run/{i}" for i in range(3)]


def test_a_job_lives_in_one_bucket(moto: S3Server, store: Store, url: str) -> None:
    for job in range(20):
        for key in keys_of(job):
            store.put(key, key.encode())
    for job in range(20):
        with_job = open_store(store_for_job(url, f"job-{job}"), s3_options(moto))
        assert [o.key for o in with_job.list(f"c/job-{job}/")] == keys_of(job)
        with_job.close()
        assert [o.key for o in store.list(f"c/job-{job}/")] == keys_of(job)
        assert bytes(read(store, keys_of(job)[1])) == keys_of(job)[1].encode()


def test_a_listing_of_all_jobs_is_in_order_and_goes_on(store: Store) -> None:
    everything = sorted(key for job in range(20) for key in keys_of(job))
    for key in everything:
        store.put(key, b"")
    assert [o.key for o in store.list("c/")] == everything
    assert [o.key for o in store.list("", after=everything[7])] == everything[8:]
    store.delete(everything[::2])
    assert [o.key for o in store.list("c/")] == everything[1::2]
    store.delete(iter(everything))
    assert not [*store.list("")]


def test_uploads_are_found_and_aborted(store: Store) -> None:
    uploads = [store.upload(keys_of(job)[0]) for job in range(6)]
    for upload in uploads:
        upload.write(bytes(40 * 2**20))
    found = list(store.uploads("c/"))
    assert {u.key for u in found} == {keys_of(job)[0] for job in range(6)}
    for unfinished in found:
        store.abort(unfinished)
    assert not [*store.uploads("")]


def test_a_key_of_no_job_is_refused(store: Store) -> None:
    with pytest.raises(ProtocolError):
        store.put("lost", b"")


def test_capabilities_are_those_of_all(moto: S3Server, store: Store, url: str) -> None:
    one = open_store(url.replace(",".join(BUCKETS), "first"), s3_options(moto))
    assert store.capabilities == one.capabilities
    one.close()


def test_a_worker_persists_each_job_into_its_bucket(
    moto: S3Server, url: str, tmp_path: Path
) -> None:
    options = s3_options(moto)
    settings = {"endpoint_url": options.endpoint_url, "region": options.region, "path_style": True}
    worker = WorkerProcess(
        options={"store": url, "store_option": [f"{k}={v}" for k, v in settings.items()]},
        directory=tmp_path,
    )
    with worker.start(), connect_all([worker]) as cluster:
        for n in range(4):
            with cluster.job(f"job-{n}", owner="runner") as job:
                shuffle = job.shuffle("words", partitions=2)
                with shuffle.writer(map_id=0, attempt=0) as writer:
                    writer.write(1, b"abc")
                view = shuffle.view({0: 0})
                published = view.persist()
                assert published.store == url
                bucket = store_for_job(url, f"job-{n}")
                for where in (url, bucket):
                    with crossdock.open_view(
                        where, f"job-{n}", "words", view.id, store_options=options
                    ) as stored:
                        assert [bytes(b.data) for b in stored.read()] == [b"abc"]
