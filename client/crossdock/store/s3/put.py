"""Objects by one request, and what all writes of S3 have in common."""

import base64
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, cast

from crossdock.store import bodies
from crossdock.store.api import ObjectInfo, Source, Verb
from crossdock.store.errors import ObjectExists, ObjectMissing
from crossdock.store.s3.calls import WRITE_MARK, Caller
from crossdock.store.s3.errors import REPORTED

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.literals import StorageClassType
    from types_boto3_s3.type_defs import (
        CreateMultipartUploadRequestTypeDef,
        PutObjectOutputTypeDef,
        PutObjectRequestTypeDef,
    )


class Write(Protocol):
    """Makes an object, by one request or several."""

    def __call__(self, *, if_absent: bool) -> ObjectInfo: ...


class Replace(Protocol):
    """Makes an object, if the one that is there has an ETag."""

    def __call__(self, *, if_match: str | None) -> ObjectInfo: ...


def new_mark() -> str:
    """Return a name for one write."""
    return secrets.token_hex(8)


def encoded_crc(crc32c: int) -> str:
    """Return a CRC32C as S3's headers have it: four bytes, big-endian, in base64."""
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()


def decorate(
    request: "PutObjectRequestTypeDef | CreateMultipartUploadRequestTypeDef",
    caller: Caller,
    mark: str,
) -> None:
    """Add what every new object carries: who wrote it, encryption, storage class."""
    options = caller.options
    request["Metadata"] = {WRITE_MARK: mark}
    if options.encryption == "AES256":
        request["ServerSideEncryption"] = "AES256"
    elif options.encryption == "aws:kms":
        request["ServerSideEncryption"] = "aws:kms"
        if options.kms_key_id:
            request["SSEKMSKeyId"] = options.kms_key_id
    if options.storage_class:
        request["StorageClass"] = cast("StorageClassType", options.storage_class)


def put_object(
    caller: Caller,
    key: str,
    source: Source,
    crc32c: int | None,
    *,
    if_absent: bool,
    if_match: str | None = None,
) -> ObjectInfo:
    """Write an object by one request. See `crossdock.store.api.Store.put`."""
    mark = new_mark()
    checksum = bodies.crc_of(source) if crc32c is None else crc32c

    def request(client: "S3Client") -> ObjectInfo:
        arguments: PutObjectRequestTypeDef = {
            "Bucket": caller.bucket,
            "Key": caller.prefix + key,
            "ContentLength": source.nbytes,
            "ChecksumCRC32C": encoded_crc(checksum),
        }
        decorate(arguments, caller, mark)
        if if_absent:
            arguments["IfNoneMatch"] = "*"
        if if_match is not None:
            arguments["IfMatch"] = f'"{if_match}"'
        answer = _sent(client, arguments, caller.body(source))
        return ObjectInfo(key, source.nbytes, answer["ETag"].strip('"'))

    def recover() -> ObjectInfo | None:
        return caller.look(key, mark)

    return caller.call(
        Verb.PUT, key, request, nbytes=source.nbytes, repeatable=False, recover=recover
    )


def unless_there(
    caller: Caller,
    key: str,
    write: "Write",
    conditional: Callable[[], bool],
    if_absent: bool,  # noqa: FBT001 -- passed on
) -> ObjectInfo:
    """Write an object, and do what is needed for put-if-absent, if that is asked for.

    On a server that cannot decide it: look, write, and read again.
    """
    if not if_absent or conditional():
        return write(if_absent=if_absent)
    with suppress(ObjectMissing):
        caller.head(key)
        raise ObjectExists(f"{key}: there is one")
    written = write(if_absent=False)
    found, _ = caller.head(key)
    if found.etag != written.etag:
        raise ObjectExists(f"{key}: somebody wrote another one")
    return written


def if_unchanged(
    caller: Caller, key: str, etag: str, conditional: Callable[[], bool], write: Replace
) -> ObjectInfo:
    """Replace an object that is still what it was.

    On a server that cannot decide it: look, write, and read again.
    """
    if conditional():
        return write(if_match=etag)
    found, _ = caller.head(key)
    if found.etag != etag:
        raise ObjectExists(f"{key}: there is another one")
    written = write(if_match=None)
    found, _ = caller.head(key)
    if found.etag != written.etag:
        raise ObjectExists(f"{key}: somebody wrote another one")
    return written


def _sent(
    client: "S3Client", arguments: "PutObjectRequestTypeDef", body: bodies.BodyFile
) -> "PutObjectOutputTypeDef":
    arguments["Body"] = body.as_io()
    try:
        return client.put_object(**arguments)
    except REPORTED as problem:
        body.raise_problem(problem)
        raise
