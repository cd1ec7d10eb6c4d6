"""The narrow interface to an object store. `crossdock.store.opening.open_store` makes one of a URL.

Calls block, are safe from many threads, and retry by themselves what the store answered with "not
now" until the deadline of the store's settings. Keys are relative to the store's URL, use "/" as
the separator and have no empty parts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from crossdock.cancel import Cancel, Stop
from crossdock.wire.crc import BytesLike


class Verb(StrEnum):
    """Requests as they are counted and priced; the names are those of S3."""

    PUT = "PutObject"
    CREATE_UPLOAD = "CreateMultipartUpload"
    UPLOAD_PART = "UploadPart"
    COMPLETE_UPLOAD = "CompleteMultipartUpload"
    ABORT_UPLOAD = "AbortMultipartUpload"
    GET = "GetObject"
    HEAD = "HeadObject"
    LIST = "ListObjectsV2"
    LIST_UPLOADS = "ListMultipartUploads"
    LIST_PARTS = "ListParts"
    DELETE = "DeleteObjects"
    GET_LIFECYCLE = "GetBucketLifecycleConfiguration"
    PUT_LIFECYCLE = "PutBucketLifecycleConfiguration"
    GET_VERSIONING = "GetBucketVersioning"
    LIST_VERSIONS = "ListObjectVersions"


class Meter(Protocol):
    """Is told of every request that was sent, retries included."""

    def __call__(self, verb: Verb, outcome: str, *, key: str, seconds: float, nbytes: int) -> None:
        """Count one request.

        Args:
            verb: what was asked.
            outcome: "ok", or the store's error code, or "timeout" or "connection".
            key: the object, or the prefix listed; "" for none.
            seconds: until the answer's head came, or the failure.
            nbytes: of the object's data sent; what is received is counted by who reads it.
        """


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store was found to do when that was first asked."""

    conditional_put: bool
    """Put-if-absent is decided by the store. Without it, the object is looked for, put, and read
    again, which two writers at one moment can both believe to have won."""
    conditional_replace: bool
    """Whether an object is still what it was is decided by the store, too. Without it, as above."""
    lists_uploads: bool
    """A listing of unfinished uploads under a prefix shows them all."""
    has_uploads: bool
    """An upload that is not finished can stay behind at all."""
    checks_checksums: bool
    """A put whose CRC32C does not fit is refused by the store."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as the store tells of it."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """Changes when the object does; without quotes. May be "" in listings of stores without."""
    modified: datetime | None = None
    """With a time zone."""


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    initiated: datetime | None = None


class Source(Protocol):
    """The bytes of an object to be: of known length, and readable again from any place."""

    @property
    def nbytes(self) -> int:
        """How many bytes there are."""

    def read_at(self, offset: int, size: int) -> BytesLike:
        """Return exactly `size` bytes from `offset` on; called from any thread."""


class Reading(Protocol):
    """The bytes of an object, or a range of it, as they come. A context manager."""

    info: ObjectInfo
    nbytes: int
    """Bytes of the range."""

    def read_into(self, target: memoryview) -> int:
        """Fill at least a byte of `target`; return how many, 0 only at the end.

        Raises:
            StoreUnavailable: it broke off; what came before is good. `get` the rest.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Upload(Protocol):
    """An object whose length is not known yet, in parts. A context manager.

    Leaving it by an exception aborts the upload, and nothing of it stays; leaving it otherwise
    without `complete` does too.
    """

    def write(self, data: BytesLike) -> None:
        """Append bytes; may block while earlier parts are sent. At most a few parts are held."""

    def complete(self, *, if_absent: bool = False) -> ObjectInfo:
        """Make the object of what was written.

        Raises:
            ObjectExists: `if_absent`, and there is one; the upload is aborted.
            StoreUnsure: no answer came; the key must not be used again.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class ReadableStore(Protocol):
    """What reading takes of a store: a bucket, a directory, or workers that have one.

    All methods raise `StoreUnavailable` when the deadline passes, and `StoreDenied`.
    """

    @property
    def url(self) -> str:
        """Where it is, without credentials."""

    def get(
        self,
        key: str,
        start: int = 0,
        stop: int | None = None,
        *,
        etag: str | None = None,
        cancel: Cancel | None = None,
    ) -> Reading:
        """Read an object, or bytes `start` to `stop` (exclusive) of it.

        Args:
            key: of the object.
            start: first byte; negative counts from the object's end, and `stop` is None then.
            stop: end of the range; None: to the object's end.
            etag: what the object must be.
            cancel: ends the call, and the reading of its answer, as soon as it can be.

        Raises:
            ObjectMissing: there is none.
            ObjectDamaged: its ETag is another, or it is shorter than the range.
            Closed: `cancel` was set.
        """

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with `prefix`, rising, page by page.

        Args:
            prefix: any beginning of keys.
            after: leave out keys up to and with this one.
        """

    def close(self) -> None:
        """Close connections. Idempotent."""


class Store(ReadableStore, Protocol):
    """A bucket or directory, below one prefix."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do. Found out at the first use, by some requests where it is remote."""

    def stopped_by(self, stop: Stop) -> "Store":
        """Return this store for a writer that somebody may end.

        `stop` is checked before each request that brings something into being: each try of it, and
        most pieces of its body. What it raises ends the call. Deletes, aborts and reads go on. It
        is closed with this one.
        """

    def put(
        self,
        key: str,
        body: BytesLike | Source,
        *,
        crc32c: int | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object: by one request, or by parts in parallel where it is too long for one.

        Nobody ever sees a part of it.

        Args:
            key: of the object.
            body: its bytes. A `Source` is read in pieces, so that memory stays bounded.
            crc32c: of all the bytes, for the store to check; None: the store's client makes one.
            if_absent: refuse to replace an object.
            if_match: ETag of the object that is to be replaced, and of no other; not together with
                `if_absent`.

        Raises:
            ObjectExists: `if_absent`, and there is one; or `if_match`, and there is another one.
                Also where a first try of ours that got no answer had been successful: read the
                object to know.
            ObjectMissing: `if_match`, and there is none.
            StoreUnsure: no answer came.
            ObjectDamaged: the store received other bytes than the checksum says, again and again.
        """

    def upload(self, key: str) -> Upload:
        """Begin an object whose length is not known."""

    def uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """Yield unfinished uploads under a prefix, as far as `capabilities` says."""

    def abort(self, upload: UnfinishedUpload) -> None:
        """Make an unfinished upload go, with its parts. One that is gone already is fine."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, many in a request. A key without an object is fine."""

    def now(self) -> datetime | None:
        """Return the store's own time, which `modified` and `initiated` are by; None: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """Settings of a store. Credentials come by the usual chain of its kind, never by these."""

    endpoint_url: str = ""
    """Of an S3 compatible server; "": Amazon's for the region."""
    region: str = ""
    """"": the environment's."""
    path_style: bool = False
    """Put the bucket in the path, not in the host name."""
    ca_file: str = ""
    """Certificate authority for the endpoint; "": the system's."""
    encryption: str = ""
    """"": the bucket's default; "AES256" (SSE-S3) or "aws:kms"."""
    kms_key_id: str = ""
    storage_class: str = ""
    """"": the bucket's default."""
    connections: int = 16
    """Requests under way at once, at most."""
    part_bytes: int = 16 * 2**20
    """Of a multipart upload; at least 5 MiB."""
    deadline_seconds: float = 120.0
    """How long a call retries "not now" answers."""
    connect_seconds: float = 5.0
    stall_seconds: float = 30.0
    """Longest wait for the next byte of an answer."""
    extra: dict[str, str] = field(default_factory=dict)
    """Of `file://`: `fsync`, "true" or "false". Of `pyarrow.fs` file systems: what their URLs take
    behind the question mark, by its names there."""
