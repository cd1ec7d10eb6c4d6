"""From URLs to stores: what is wrong is named, and nothing is sent."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.errors import ConfigError
from crossdock.store.api import StoreOptions
from crossdock.store.opening import open_store, store_for_job


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("", "scheme"),
        ("/tmp/x", "scheme"),  # noqa: S108
        ("http://host/x", "scheme"),
        ("s3://[", "s3"),
        ("file://relative/x", "three slashes"),
        ("file:///", "three slashes"),
        ("s3:///prefix", "bucket"),
        ("s3://a,,b/prefix", "comma"),
        ("s3://bucket/a//b", "key"),
        ("s3://bucket/../b", "key"),
        ("s3://bucket/x?region=eu", "options"),
        ("s3://bucket/x#y", "options"),
        ("s3://KEYID:SECRET@bucket/x", "credentials"),
        ("s3://KEYID@bucket/x", "credentials"),
        ("hdfs://nowhere:1/x", "hdfs://nowhere:1/x"),
    ],
)
def test_a_wrong_url_is_named(url: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        open_store(url)
    assert "SECRET" not in str(caught.value)
    assert caught.value.hint or "key" in named


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (StoreOptions(part_bytes=2**20), "part_bytes"),
        (StoreOptions(encryption="aes"), "encryption"),
        (StoreOptions(kms_key_id="x"), "kms_key_id"),
        (StoreOptions(connections=0), "connections"),
        (StoreOptions(deadline_seconds=0), "deadline_seconds"),
        (StoreOptions(connect_seconds=-1), "connect_seconds"),
        (StoreOptions(stall_seconds=0), "stall_seconds"),
        (StoreOptions(ca_file="/nowhere.pem"), "nowhere.pem"),
        (StoreOptions(endpoint_url="minio:9000"), "endpoint_url"),
        (StoreOptions(extra={"endpoint": "http://minio:9000"}), "no option is called endpoint"),
    ],
)
def test_a_wrong_option_is_named(options: StoreOptions, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        open_store("s3://bucket/x", options)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ConfigError, match="not a directory"):
        open_store((tmp_path / "f").as_uri())
    with pytest.raises(ConfigError, match="fsync"):
        open_store(tmp_path.as_uri(), StoreOptions(extra={"fsync": "maybe"}))


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("s3://bucket/x", "boto3", "s3"), ("gs://bucket/x", "pyarrow", "arrow")],
)
def test_a_missing_extra_gives_the_line(url: str, module: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from crossdock.store.opening import open_store\n"
        f"open_store({url!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'crossdock[{extra}]'" in done.stderr


def test_files_need_no_extra() -> None:
    code = (
        "import sys; from crossdock.store.opening import open_store\n"
        "open_store('file:///nowhere/x')\n"
        "assert not {'boto3', 'botocore', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_urls_are_told_without_a_slash_at_the_end() -> None:
    assert open_store("s3://bucket/").url == "s3://bucket"
    assert open_store("s3://bucket/a/b/").url == "s3://bucket/a/b"


def test_one_bucket_is_every_job_s() -> None:
    assert store_for_job("s3://bucket/x", "job") == "s3://bucket/x"
    assert store_for_job("file:///x", "job") == "file:///x"


def test_buckets_share_the_jobs() -> None:
    chosen = Counter(store_for_job("s3://a,b,c/x", f"job-{n}") for n in range(900))
    assert set(chosen) == {"s3://a/x", "s3://b/x", "s3://c/x"}
    assert min(chosen.values()) > 240


@given(job=st.text(min_size=1), names=st.sets(st.sampled_from("abcdefgh"), min_size=2))
def test_a_bucket_more_takes_jobs_and_moves_none(job: str, names: set[str]) -> None:
    few = ",".join(sorted(names))
    before = store_for_job(f"s3://{few}/x", job)
    assert before == store_for_job(f"s3://{','.join(sorted(names, reverse=True))}/x", job)
    assert store_for_job(f"s3://{few},new/x", job) in {before, "s3://new/x"}


def test_a_bucket_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="comma"):
        store_for_job("s3://a,,b/x", "job")
