"""A bucket as a store.

Every HTTP request goes through `Caller.call` (calls.py): it waits for its turn, is counted, and
is sent again as long as that is harmless and may help.
"""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from crossdock.cancel import Cancel, Stop
from crossdock.errors import ConfigError
from crossdock.store import bodies
from crossdock.store.api import (
    Capabilities,
    Meter,
    ObjectInfo,
    Source,
    StoreOptions,
    UnfinishedUpload,
    Verb,
)
from crossdock.store.errors import ObjectDamaged
from crossdock.store.keys import check_key, check_prefix
from crossdock.store.rules import Lifecycle
from crossdock.store.s3.calls import Caller
from crossdock.store.s3.delete import delete
from crossdock.store.s3.lifecycle import read_lifecycle, write_lifecycle
from crossdock.store.s3.multipart import abort, uploads
from crossdock.store.s3.probe import probe
from crossdock.store.s3.put import if_unchanged, put_object, unless_there
from crossdock.store.s3.reading import S3Reading, open_reading
from crossdock.store.s3.upload import S3Upload, put_parts
from crossdock.store.s3.versions import keeps_versions, old_versions
from crossdock.store.versions import OldVersions
from crossdock.wire.crc import BytesLike

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ListObjectsV2RequestTypeDef

MAX_PUT_BYTES: Final = 5 * 2**30
"""The longest object that one request may make."""


class S3Store:
    """A bucket below one prefix. See `crossdock.store.api.Store`."""

    def __init__(
        self, bucket: str, prefix: str, options: StoreOptions, *, meter: Meter | None = None
    ) -> None:
        """Take a bucket. Nothing is sent.

        Args:
            bucket: its name.
            prefix: before every key; "" or with a slash at the end.
            options: settings.
            meter: is told of every HTTP request.
        """
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._caller = Caller(bucket, prefix, options, meter)
        self._lock = threading.Lock()
        self._probe_lock = threading.Lock()
        self._capabilities: Capabilities | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._whole = self
        """Has what all writers share: threads, and what was found out."""

    def stopped_by(self, stop: Stop) -> "S3Store":
        """Return the same bucket for a writer that may be ended."""
        found = copy(self)
        found._caller = self._caller.stopped_by(stop)  # noqa: SLF001 -- one class
        return found

    def __repr__(self) -> str:
        return f"<S3Store {self.url}>"

    @property
    def capabilities(self) -> Capabilities:
        """Found by trying, when it is first asked for."""
        if self._whole is not self:
            return self._whole.capabilities
        with self._probe_lock:
            if self._capabilities is None:
                self._capabilities = probe(self._caller)
            return self._capabilities

    def put(
        self,
        key: str,
        body: BytesLike | Source,
        *,
        crc32c: int | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object, by one request if it is not too long for that."""
        source = bodies.as_source(body)
        if if_match is not None:
            return self._replace(check_key(key), source, crc32c, if_match)
        if source.nbytes <= MAX_PUT_BYTES:
            write = partial(put_object, self._caller, check_key(key), source, crc32c)
        else:
            write = partial(
                put_parts, self._caller, self._threads(), check_key(key), source, crc32c
            )
        return unless_there(self._caller, key, write, self._is_conditional, if_absent)

    def _replace(self, key: str, source: Source, crc32c: int | None, etag: str) -> ObjectInfo:
        if source.nbytes > MAX_PUT_BYTES:
            raise ConfigError(f"{key}: what has {source.nbytes} bytes replaces no object by parts")
        write = partial(put_object, self._caller, key, source, crc32c, if_absent=False)
        return if_unchanged(
            self._caller, key, etag, lambda: self.capabilities.conditional_replace, write
        )

    def upload(self, key: str) -> S3Upload:
        """Begin an object whose length is not known."""
        return S3Upload(
            self._caller, self._threads(), check_key(key), conditional=self._is_conditional
        )

    def get(
        self,
        key: str,
        start: int = 0,
        stop: int | None = None,
        *,
        etag: str | None = None,
        cancel: Cancel | None = None,
    ) -> S3Reading:
        """Read an object, or a range of it."""
        return open_reading(self._caller, check_key(key), start, stop, etag=etag, cancel=cancel)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with `prefix`, rising, page by page.

        Raises:
            ObjectDamaged: the listing goes backwards, or strays: it cannot be believed.
        """
        caller, last, token = self._caller, after, ""
        full = caller.prefix + check_prefix(prefix)
        while True:
            page = caller.call(Verb.LIST, prefix, partial(_page, caller, full, after, token))
            for each in page.get("Contents", []):
                key = each["Key"].removeprefix(caller.prefix)
                if not each["Key"].startswith(full) or key <= last:
                    raise ObjectDamaged(f"{prefix}: a listing has {key!r} behind {last!r}")
                last = key
                yield ObjectInfo(
                    key, each["Size"], each.get("ETag", "").strip('"'), each.get("LastModified")
                )
            following = page.get("NextContinuationToken", "")
            if not page.get("IsTruncated"):
                return
            if not following or following == token:
                raise ObjectDamaged(f"{prefix}: a listing has no next page, and no end")
            token = following

    def uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """Yield unfinished uploads under a prefix, as far as the server shows them."""
        yield from uploads(self._caller, check_prefix(prefix))

    def abort(self, upload: UnfinishedUpload) -> None:
        """Make an unfinished upload go, with its parts."""
        check_key(upload.key)
        abort(self._caller, upload)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, a thousand in a request."""
        delete(self._caller, map(check_key, keys))

    def read_lifecycle(self) -> Lifecycle | None:
        """Return the bucket's lifecycle rules; see `lifecycle.py`."""
        return read_lifecycle(self._caller)

    def write_lifecycle(self, lifecycle: Lifecycle) -> None:
        """Replace the bucket's lifecycle rules; see `lifecycle.py`."""
        write_lifecycle(self._caller, lifecycle)

    def keeps_versions(self) -> bool | None:
        """Return whether what is deleted stays as versions; see `crossdock.store.versions`."""
        return keeps_versions(self._caller)

    def old_versions(self, prefix: str) -> OldVersions | None:
        """Count some of what is not current; see `crossdock.store.versions`."""
        return old_versions(self._caller, check_prefix(prefix))

    @property
    def prefix(self) -> str:
        """Before every key of the bucket that is of this store."""
        return self._caller.prefix

    def now(self) -> datetime | None:
        """Return the Date of an answer: of a listing of at most one key."""
        caller = self._caller
        answer = caller.call(
            Verb.LIST,
            "",
            lambda client: client.list_objects_v2(
                Bucket=caller.bucket, Prefix=caller.prefix, MaxKeys=1
            ),
        )
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            found = parsedate_to_datetime(date)
        except ValueError:
            return None
        return found if found.tzinfo else found.replace(tzinfo=UTC)  # HTTP has no other

    def close(self) -> None:
        """End what is under way, and close connections."""
        self._caller.close()
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _is_conditional(self) -> bool:
        return self.capabilities.conditional_put

    def _threads(self) -> ThreadPoolExecutor:
        if self._whole is not self:
            return self._whole._threads()  # noqa: SLF001 -- one class
        with self._lock:
            if self._pool is None:
                threads = self._caller.options.connections
                self._pool = ThreadPoolExecutor(threads, thread_name_prefix="crossdock-s3")
            return self._pool


def _page(
    caller: Caller, prefix: str, after: str, token: str, client: "S3Client"
) -> "ListObjectsV2OutputTypeDef":
    arguments: ListObjectsV2RequestTypeDef = {"Bucket": caller.bucket, "Prefix": prefix}
    if after:
        arguments["StartAfter"] = caller.prefix + after
    if token:
        arguments["ContinuationToken"] = token
    return client.list_objects_v2(**arguments)
