"""Versions in a bucket: whether it keeps them, and how many are left of what was deleted."""

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from crossdock.store.api import Verb
from crossdock.store.errors import ObjectMissing, StoreDenied
from crossdock.store.s3.calls import Caller
from crossdock.store.s3.errors import NotSupported
from crossdock.store.versions import OldVersions

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_PAGES: Final = 10
"""Of 1,000 each."""


def keeps_versions(caller: Caller) -> bool | None:
    """Return whether deleted objects stay as versions; None: the credentials do not say."""

    def request(client: "S3Client") -> str:
        return str(client.get_bucket_versioning(Bucket=caller.bucket).get("Status", ""))

    try:
        return bool(caller.call(Verb.GET_VERSIONING, "", request))
    except (NotSupported, ObjectMissing):  # servers without
        return False
    except StoreDenied:
        return None


def old_versions(caller: Caller, prefix: str) -> OldVersions | None:
    """Count what is not current below a prefix, on some pages; None: they may not be listed."""
    count = 0
    after: dict[str, str] = {}
    for _ in range(_PAGES):
        try:
            page = caller.call(Verb.LIST_VERSIONS, prefix, partial(_page, caller, prefix, after))
        except StoreDenied:
            return None
        except (NotSupported, ObjectMissing):
            return OldVersions(0, more=False)
        count += sum(not each.get("IsLatest") for each in page.get("Versions", []))
        count += len(page.get("DeleteMarkers", []))
        if not page.get("IsTruncated"):
            return OldVersions(count, more=False)
        after = {
            "KeyMarker": page.get("NextKeyMarker", ""),
            "VersionIdMarker": page.get("NextVersionIdMarker", ""),
        }
    return OldVersions(count, more=True)


def _page(caller: Caller, prefix: str, after: dict[str, str], client: "S3Client") -> Any:
    where: Any = {"Prefix": caller.prefix + prefix, **after}
    return client.list_object_versions(Bucket=caller.bucket, **where)
