"""Reading an object of S3, or a range of it."""

import re
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from botocore.exceptions import BotoCoreError
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError

from crossdock.cancel import Cancel
from crossdock.store.api import ObjectInfo, Verb
from crossdock.store.errors import ObjectDamaged, StoreUnavailable
from crossdock.store.ranges import check_range, resolve
from crossdock.store.s3.calls import Caller
from crossdock.store.s3.errors import NoSuchRange

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, GetObjectRequestTypeDef

_AT_ONCE_BYTES: Final = 2**18
"""Asked of a body at once: what a connection that breaks may take with it."""
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def open_reading(
    caller: Caller,
    key: str,
    start: int,
    stop: int | None,
    *,
    etag: str | None,
    cancel: Cancel | None = None,
) -> "S3Reading":
    """Ask for a range. See `crossdock.store.api.Store.get`."""
    check_range(start, stop)
    if stop == start:
        return _nothing(caller, key, start, stop, etag)

    def request(client: "S3Client") -> "GetObjectOutputTypeDef":
        arguments: GetObjectRequestTypeDef = {
            "Bucket": caller.bucket,
            "Key": caller.prefix + key,
        }
        if etag is not None:
            arguments["IfMatch"] = f'"{etag}"'
        if start or stop is not None:
            arguments["Range"] = _header(start, stop)
        return client.get_object(**arguments)

    try:
        answer = caller.call(Verb.GET, key, request, cancel=cancel)
    except NoSuchRange:  # behind its end, or of an object without bytes
        return _nothing(caller, key, start, stop, etag)
    try:
        return _checked(answer, key, start, stop, etag=etag, cancel=cancel)
    except ObjectDamaged:
        answer["Body"].close()
        raise


class S3Reading:
    """Bytes as they come. See `crossdock.store.api.Reading`."""

    def __init__(
        self,
        info: ObjectInfo,
        nbytes: int,
        body: "StreamingBody | None",
        cancel: Cancel | None = None,
    ) -> None:
        self.info = info
        self.nbytes = nbytes
        self._left = nbytes
        self._body = body
        self._cancel = cancel
        if cancel is not None and body is not None:
            cancel.watch(self, self._hang_up)

    def _hang_up(self) -> None:
        """Wake the thread that waits for the next byte."""
        answer: object = getattr(self._body, "_raw_stream", None)  # botocore has no other way
        if isinstance(answer, HTTPResponse):
            with suppress(OSError, RuntimeError, ValueError):  # it is over already
                answer.shutdown()

    def read_into(self, target: memoryview) -> int:
        """Fill at least a byte of `target`; return how many, 0 only at the end."""
        wanted = min(len(target), self._left, _AT_ONCE_BYTES)
        if not wanted or self._body is None:
            return 0
        try:
            count: int = self._body.readinto(target[:wanted])  # type: ignore[arg-type]
        except (BotoCoreError, HTTPError, OSError, ValueError) as problem:
            self._check()
            raise self._broken(str(problem)) from problem
        if not count:
            self._check()
            raise self._broken("the answer ended early")
        self._left -= count
        return count

    def _check(self) -> None:
        if self._cancel is not None:
            self._cancel.check()

    def _broken(self, why: str) -> StoreUnavailable:
        at = self.nbytes - self._left
        return StoreUnavailable(f"{self.info.key}: broke off after {at} bytes of it: {why}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._cancel is not None:
            self._cancel.unwatch(self)
        if self._body is not None:
            self._body.close()


def _header(start: int, stop: int | None) -> str:
    if start < 0:
        return f"bytes={start}"
    return f"bytes={start}-{'' if stop is None else stop - 1}"


def _nothing(
    caller: Caller, key: str, start: int, stop: int | None, etag: str | None
) -> "S3Reading":
    """Return a range without bytes, which no request can ask for, or raise what is wrong."""
    info, _ = caller.head(key, etag=etag)
    first, end = resolve(info, start, stop, etag)
    if end > first:
        raise ObjectDamaged(f"{key}: the store has {info.size} bytes, and refuses to send them")
    return S3Reading(info, 0, None)


def _checked(
    answer: "GetObjectOutputTypeDef",
    key: str,
    start: int,
    stop: int | None,
    *,
    etag: str | None,
    cancel: Cancel | None,
) -> "S3Reading":
    """Return the reading of an answer, or raise `ObjectDamaged` if it was not what was asked."""
    length = answer["ContentLength"]
    found = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
    first, behind, size = (
        (int(found[1]), int(found[2]) + 1, int(found[3]))
        if found
        else (
            0,
            length,
            length,
        )
    )
    modified = answer.get("LastModified")
    info = ObjectInfo(key, size, answer["ETag"].strip('"'), modified)
    wanted = resolve(info, start, stop, etag)
    if wanted != (first, behind) or length != behind - first:
        raise ObjectDamaged(
            f"{key}: asked for bytes {wanted[0]} to {wanted[1]}, answered {first} to {behind}"
            f" in {length} bytes"
        )
    return S3Reading(info, length, answer["Body"], cancel)
