"""What an S3 server can do, found by trying: some answer "done" to what they do not do.

Everything happens under keys that nobody else uses, but for an upload, which has an id of its own;
and nothing of it stays, unless the process is killed or a request comes late: then
`crossdock.store.probes` clears it.
"""

import secrets
from contextlib import suppress
from typing import Final

from crossdock.errors import ConfigError, CrossdockError
from crossdock.store.api import Capabilities
from crossdock.store.bodies import BufferSource
from crossdock.store.errors import ObjectDamaged, ObjectExists, ObjectMissing
from crossdock.store.probes import FOLDER, UPLOAD
from crossdock.store.s3.calls import Caller
from crossdock.store.s3.delete import delete
from crossdock.store.s3.errors import NotSupported
from crossdock.store.s3.multipart import Multipart, uploads
from crossdock.store.s3.put import put_object
from crossdock.wire import crc

_BYTES: Final = b"crossdock"
_NO_ETAG: Final = "0" * 32


def probe(caller: Caller) -> Capabilities:
    """Return what the server can do. It takes about ten requests, most of them writes.

    Raises:
        ConfigError: it has no multipart uploads.
    """
    folder = f"{FOLDER}{secrets.token_hex(8)}/"
    try:
        return Capabilities(
            conditional_put=_conditional_put(caller, f"{folder}condition"),
            conditional_replace=_conditional_replace(caller, f"{folder}condition"),
            lists_uploads=_lists_uploads(caller),
            has_uploads=True,
            checks_checksums=_checks_checksums(caller, f"{folder}checksum"),
        )
    finally:
        with suppress(CrossdockError):
            delete(caller, [f"{folder}condition", f"{folder}checksum"])


def _conditional_put(caller: Caller, key: str) -> bool:
    source = BufferSource(_BYTES)
    try:
        put_object(caller, key, source, None, if_absent=True)
        put_object(caller, key, source, None, if_absent=True)
    except ObjectExists:
        return True
    except NotSupported:
        return False
    return False


def _conditional_replace(caller: Caller, key: str) -> bool:
    """Of the object that the probe before this one has left, unless it was refused."""
    try:
        put_object(caller, key, BufferSource(_BYTES), None, if_absent=False, if_match=_NO_ETAG)
    except (ObjectExists, ObjectMissing):
        return True
    except NotSupported:
        return False
    return False


def _checks_checksums(caller: Caller, key: str) -> bool:
    wrong = crc.extend(0, _BYTES) ^ 1
    try:
        put_object(caller, key, BufferSource(_BYTES), wrong, if_absent=False)
    except ObjectDamaged:
        return True
    except ConfigError:  # refused in words of its own; another put of ours has just been taken
        return True
    return False


def _lists_uploads(caller: Caller) -> bool:
    upload = Multipart(caller, UPLOAD)
    try:
        return any(each.upload_id == upload.id for each in uploads(caller, FOLDER))
    except NotSupported:
        return False
    finally:
        upload.abort()
