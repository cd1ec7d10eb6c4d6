"""S3 behind TLS: bodies are not signed there, so TLS and the CRC32C have to protect them."""

from collections.abc import Iterator

import pytest
from places import RandomSource, keys, read, whole
from servers import S3Server, running, s3_options

from certificates import Authority
from crossdock.errors import ConfigError
from crossdock.store.errors import ObjectDamaged
from crossdock.store.opening import open_store

MIB = 2**20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("certificates"), "the authority")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[S3Server]:
    with running("versitygw", tmp_path_factory.mktemp("secure"), authority) as server:
        yield server


def test_an_authority_of_one_s_own(secure: S3Server, authority: Authority, folder: str) -> None:
    options = s3_options(secure, ca_file=str(authority.ca), part_bytes=5 * MIB)
    store = open_store(f"s3://{secure.bucket}/x", options)
    source = RandomSource(3 * MIB)
    store.put(f"{folder}a", source)
    with store.upload(f"{folder}b") as upload:
        upload.write(whole(RandomSource(11 * MIB)))
        upload.complete()
    assert read(store, f"{folder}a") == whole(source)
    assert read(store, f"{folder}b") == whole(RandomSource(11 * MIB))
    with pytest.raises(ObjectDamaged):
        store.put(f"{folder}c", source, crc32c=1)
    assert store.capabilities.checks_checksums
    store.delete(keys(store, folder))
    store.close()


def test_an_unknown_authority_is_refused_at_once(secure: S3Server, folder: str) -> None:
    store = open_store(f"s3://{secure.bucket}/x", s3_options(secure))
    with pytest.raises(ConfigError, match="ca_file"):
        store.put(f"{folder}a", b"x")
    store.close()
