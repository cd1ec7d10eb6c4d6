"""One multipart upload: its requests, and how it ends."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from crossdock.errors import CrossdockError
from crossdock.retry import Patience
from crossdock.store import bodies
from crossdock.store.api import ObjectInfo, Source, UnfinishedUpload, Verb
from crossdock.store.errors import (
    ObjectDamaged,
    ObjectMissing,
    StoreUnavailable,
    StoreUnsure,
)
from crossdock.store.s3.calls import Caller
from crossdock.store.s3.errors import REPORTED
from crossdock.store.s3.put import decorate, encoded_crc, new_mark
from crossdock.wire import crc

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import (
        CompletedPartTypeDef,
        CompleteMultipartUploadRequestTypeDef,
        CreateMultipartUploadRequestTypeDef,
        ListMultipartUploadsOutputTypeDef,
    )

MAX_PARTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the store has."""

    number: int
    """From 1 on."""
    nbytes: int
    crc32c: int
    etag: str


class Multipart:
    """An upload that was begun. Thread-safe but for `complete` and `abort`."""

    def __init__(self, caller: Caller, key: str) -> None:
        """Begin it: the first request goes out here."""
        self._caller = caller
        self._key = key
        self._mark = new_mark()
        self._parts: dict[int, Part] = {}
        self._upload = UnfinishedUpload(key, self._create())

    @property
    def id(self) -> str:
        """The server's name for it."""
        return self._upload.upload_id

    def send(self, number: int, source: Source) -> None:
        """Send a part; safe to repeat, as no part counts before the end names its ETag.

        Raises:
            ObjectMissing: somebody aborted the upload.
        """
        caller = self._caller
        checksum = bodies.crc_of(source)

        def request(client: "S3Client") -> str:
            body = caller.body(source)
            try:
                answer = client.upload_part(
                    Bucket=caller.bucket,
                    Key=caller.prefix + self._key,
                    UploadId=self._upload.upload_id,
                    PartNumber=number,
                    ContentLength=source.nbytes,
                    ChecksumCRC32C=encoded_crc(checksum),
                    Body=body.as_io(),
                )
            except REPORTED as problem:
                body.raise_problem(problem)
                raise
            return answer["ETag"]

        etag = caller.call(Verb.UPLOAD_PART, self._key, request, nbytes=source.nbytes)
        self._parts[number] = Part(number, source.nbytes, checksum, etag)

    @property
    def crc32c(self) -> int:
        """Of all parts that were sent, in their order."""
        parts = self._ordered()
        crcs = np.array([part.crc32c for part in parts], np.uint32)
        return crc.combined(crcs, np.array([part.nbytes for part in parts], np.int64))

    def complete(self, *, if_absent: bool) -> ObjectInfo:
        """Make the object of its parts.

        A completion that seems to have failed is looked for, and sent again: it names the same
        parts of the same upload, so a second one can change nothing.
        """
        caller, parts = self._caller, self._ordered()
        listed: list[CompletedPartTypeDef] = [
            {"PartNumber": p.number, "ETag": p.etag, "ChecksumCRC32C": encoded_crc(p.crc32c)}
            for p in parts
        ]
        size = sum(part.nbytes for part in parts)

        def request(client: "S3Client") -> ObjectInfo:
            arguments: CompleteMultipartUploadRequestTypeDef = {
                "Bucket": caller.bucket,
                "Key": caller.prefix + self._key,
                "UploadId": self._upload.upload_id,
                "MultipartUpload": {"Parts": listed},
            }
            if if_absent:
                arguments["IfNoneMatch"] = "*"
            answer = client.complete_multipart_upload(**arguments)
            return ObjectInfo(self._key, size, answer["ETag"].strip('"'))

        def recover() -> ObjectInfo | None:
            return caller.look(self._key, self._mark)

        return caller.call(Verb.COMPLETE_UPLOAD, self._key, request, recover=recover)

    def abort(self) -> None:
        """End it, and see it gone."""
        abort(self._caller, self._upload)

    def _create(self) -> str:
        caller = self._caller

        def request(client: "S3Client") -> str:
            arguments: CreateMultipartUploadRequestTypeDef = {
                "Bucket": caller.bucket,
                "Key": caller.prefix + self._key,
                "ChecksumAlgorithm": "CRC32C",
            }
            decorate(arguments, caller, self._mark)
            return client.create_multipart_upload(**arguments)["UploadId"]

        try:
            return caller.call(Verb.CREATE_UPLOAD, self._key, request, repeatable=False)
        except StoreUnsure:
            # It may have begun all the same. What is listed under this key can only be ours.
            with suppress(CrossdockError):
                for upload in uploads(caller, self._key):
                    if upload.key == self._key:
                        abort(caller, upload)
            raise

    def _ordered(self) -> list[Part]:
        return [self._parts[number] for number in sorted(self._parts)]


def abort(caller: Caller, upload: UnfinishedUpload) -> None:
    """End an upload, again and again until the store has none of its parts.

    A part that was under way when an upload was aborted may be kept, and billed, says the
    reference of AbortMultipartUpload.
    """
    patience = Patience(caller.options.deadline_seconds)
    while True:
        with suppress(ObjectMissing):
            caller.call(Verb.ABORT_UPLOAD, upload.key, lambda c: _abort_once(c, caller, upload))
        if not _has_parts(caller, upload):
            return
        patience.wait_after(StoreUnavailable(f"{upload.key}: parts of its upload stay"))


def uploads(caller: Caller, prefix: str) -> Iterator[UnfinishedUpload]:
    """Yield unfinished uploads under a prefix, page by page."""
    key_marker, id_marker = "", ""
    while True:

        def request(
            client: "S3Client", key_marker: str = key_marker, id_marker: str = id_marker
        ) -> "ListMultipartUploadsOutputTypeDef":
            return client.list_multipart_uploads(
                Bucket=caller.bucket,
                Prefix=caller.prefix + prefix,
                KeyMarker=key_marker,
                UploadIdMarker=id_marker,
            )

        page = caller.call(Verb.LIST_UPLOADS, prefix, request)
        for each in page.get("Uploads", []):
            key = each["Key"].removeprefix(caller.prefix)
            yield UnfinishedUpload(key, each["UploadId"], each.get("Initiated"))
        marker = page.get("NextKeyMarker", ""), page.get("NextUploadIdMarker", "")
        if not page.get("IsTruncated"):
            return
        if marker == (key_marker, id_marker):
            raise ObjectDamaged(f"{prefix}: a listing of uploads does not end")
        key_marker, id_marker = marker


def _abort_once(client: "S3Client", caller: Caller, upload: UnfinishedUpload) -> None:
    client.abort_multipart_upload(
        Bucket=caller.bucket, Key=caller.prefix + upload.key, UploadId=upload.upload_id
    )


def _has_parts(caller: Caller, upload: UnfinishedUpload) -> bool:
    def request(client: "S3Client") -> bool:
        answer = client.list_parts(
            Bucket=caller.bucket,
            Key=caller.prefix + upload.key,
            UploadId=upload.upload_id,
            MaxParts=1,
        )
        return bool(answer.get("Parts"))

    try:
        return caller.call(Verb.LIST_PARTS, upload.key, request)
    except ObjectMissing:
        return False
