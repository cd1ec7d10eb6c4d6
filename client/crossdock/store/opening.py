"""From a URL to a store, and from a job to its bucket."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from crossdock.errors import ConfigError
from crossdock.store.api import Meter, Store, StoreOptions
from crossdock.store.buckets import Buckets
from crossdock.store.file import FileStore
from crossdock.store.keys import check_key

SCHEMES: Final = ("file", "s3", "gs", "hdfs", "abfs")
_URLS: Final = "file:///directory, s3://bucket/prefix, gs://, hdfs:// or abfs://"
_BOOLEANS: Final = {"": False, "false": False, "true": True}
_MIN_PART_BYTES: Final = 5 * 2**20
_ENCRYPTIONS: Final = ("", "AES256", "aws:kms")


def open_store(
    url: str, options: StoreOptions | None = None, *, meter: Meter | None = None
) -> Store:
    """Return the store of a URL. Nothing is sent yet.

    Args:
        url: `file:///directory`, `s3://bucket/prefix`, or `gs://`, `hdfs://`, `abfs://` as
            `pyarrow.fs` takes them. Of `s3://b1,b2/prefix` each job has one bucket.
        options: None: the defaults.
        meter: is told of every request.

    Raises:
        ConfigError: the URL or an option is wrong, or an extra is not installed.
    """
    chosen = options or StoreOptions()
    _check_options(chosen)
    parts = _split(url)
    if parts.scheme == "file":
        return _open_file(parts, chosen, meter)
    if parts.scheme == "s3":
        return _open_s3(parts, chosen, meter)
    return _open_arrow(url, chosen, meter)


def store_for_job(url: str, job: str) -> str:
    """Return the URL of the one bucket of `s3://b1,b2,b3/prefix` in which a job lives.

    Pure, and the same for whoever asks: the bucket whose name, hashed with the job's, is highest.
    So a bucket that is added takes only its share of the jobs from each of the others. It does
    take them: let jobs end before the list is changed, or keep the answer with the job.
    """
    parts = _split(url)
    buckets = _buckets(parts)
    if len(buckets) == 1:
        return url

    def rank(bucket: str) -> bytes:
        return hashlib.sha256(f"{bucket}/{job}".encode()).digest()

    return urlunsplit(parts._replace(netloc=max(buckets, key=rank)))


def _buckets(parts: SplitResult) -> list[str]:
    found = parts.netloc.split(",")
    if len(found) > 1 and not all(found):
        raise ConfigError(
            f"store {parts.geturl()}: a bucket between the commas has no name",
            hint="write s3://bucket,another/prefix",
        )
    return sorted(set(found))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as problem:
        raise ConfigError(f"store {url!r}: {problem}", hint=f"write {_URLS}") from problem
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"store {url!r}: no store has this scheme", hint=f"write {_URLS}")
    if parts.password is not None or (parts.username is not None and parts.scheme == "s3"):
        raise ConfigError(
            f"a store's URL ({parts.scheme}://…) has credentials in it",
            hint="credentials come from the environment, a file or the machine's role",
        )
    if parts.query or parts.fragment:
        raise ConfigError(
            f"store {url}: nothing may stand behind '?' or '#'", hint="use the store's options"
        )
    return parts


def _check_options(options: StoreOptions) -> None:
    if options.part_bytes < _MIN_PART_BYTES:
        raise ConfigError(
            f"part_bytes {options.part_bytes}: object stores refuse parts below {_MIN_PART_BYTES}",
            hint="the default is 16 MiB",
        )
    if options.encryption not in _ENCRYPTIONS:
        raise ConfigError(
            f"encryption {options.encryption!r} is unknown", hint="'', 'AES256' or 'aws:kms'"
        )
    if options.kms_key_id and options.encryption != "aws:kms":
        raise ConfigError("kms_key_id is set, and encryption is not", hint="set it to 'aws:kms'")
    for name in ("connections", "deadline_seconds", "connect_seconds", "stall_seconds"):
        if getattr(options, name) <= 0:
            raise ConfigError(f"{name} must be more than 0")
    if options.ca_file and not Path(options.ca_file).is_file():
        raise ConfigError(f"ca_file {options.ca_file}: there is no such file")
    if options.endpoint_url and urlsplit(options.endpoint_url).scheme not in {"http", "https"}:
        raise ConfigError(
            f"endpoint_url {options.endpoint_url!r} is no URL of a server",
            hint="write https://host:port",
        )


def _check_extra(options: StoreOptions, parts: SplitResult, *known: str) -> None:
    unknown = sorted(options.extra.keys() - set(known))
    if unknown:
        raise ConfigError(
            f"store {parts.geturl()}: no option is called {', '.join(unknown)}",
            hint="docs/stores.md lists them",
        )


def _open_file(parts: SplitResult, options: StoreOptions, meter: Meter | None) -> Store:
    path = unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or path in {"", "/"}:
        raise ConfigError(
            f"store {parts.geturl()!r} names no directory",
            hint="write file:///directory, with three slashes",
        )
    _check_extra(options, parts, "fsync")
    fsync = options.extra.get("fsync", "").lower()
    if fsync not in _BOOLEANS:
        raise ConfigError(f"fsync {fsync!r}: neither 'true' nor 'false'")
    return FileStore(Path(path), fsync=_BOOLEANS[fsync], meter=meter)


def _open_s3(parts: SplitResult, options: StoreOptions, meter: Meter | None) -> Store:
    _check_extra(options, parts)
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if not bucket:
        raise ConfigError(f"store {parts.geturl()!r} names no bucket", hint="s3://bucket/prefix")
    if "," in bucket:
        return _open_buckets(parts, options, meter)
    if prefix:
        check_key(prefix)

    def load() -> Store:
        from crossdock.store.s3.store import S3Store  # noqa: PLC0415 -- an extra

        return S3Store(bucket, f"{prefix}/" if prefix else "", options, meter=meter)

    return _with_extra("s3", parts.scheme, load)


def _open_buckets(parts: SplitResult, options: StoreOptions, meter: Meter | None) -> Store:
    url = parts.geturl()
    each = [parts._replace(netloc=bucket) for bucket in _buckets(parts)]
    return Buckets(
        url.rstrip("/"),
        {one.geturl(): partial(_open_s3, one, options, meter) for one in each},
        partial(store_for_job, url),
    )


def _open_arrow(url: str, options: StoreOptions, meter: Meter | None) -> Store:
    def load() -> Store:
        from crossdock.store.arrowfs import open_arrow_store  # noqa: PLC0415 -- an extra

        return open_arrow_store(url, options, meter=meter)

    return _with_extra("arrow", urlsplit(url).scheme, load)


def _with_extra(extra: str, scheme: str, load: Callable[[], Store]) -> Store:
    try:
        return load()
    except ModuleNotFoundError as problem:
        raise ConfigError(
            f"{scheme}:// needs the Python package {problem.name}",
            hint=f"pip install 'crossdock[{extra}]'",
        ) from problem
