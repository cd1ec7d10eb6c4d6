"""The lifecycle rules of a bucket: read, and written as a whole, as S3 has it."""

from typing import TYPE_CHECKING, Any, Final

from crossdock.store.api import Verb
from crossdock.store.errors import ObjectMissing
from crossdock.store.rules import Lifecycle
from crossdock.store.s3.calls import Caller
from crossdock.store.s3.errors import NotSupported

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_SIZE: Final = "TransitionDefaultMinimumObjectSize"
"""A write without it would reset it."""


def read_lifecycle(caller: Caller) -> Lifecycle | None:
    """Return the rules of the bucket; None: the server has none at all.

    Raises:
        StoreDenied: the credentials lack s3:GetLifecycleConfiguration.
    """

    def request(client: "S3Client") -> Lifecycle:
        answer = client.get_bucket_lifecycle_configuration(Bucket=caller.bucket)
        rules: list[Any] = list(answer.get("Rules", []))
        return Lifecycle(rules, str(answer.get(_SIZE, "")))

    try:
        return caller.call(Verb.GET_LIFECYCLE, "", request)
    except ObjectMissing:  # NoSuchLifecycleConfiguration
        return Lifecycle([])
    except NotSupported:
        return None


def write_lifecycle(caller: Caller, lifecycle: Lifecycle) -> None:
    """Replace the rules of the bucket.

    Raises:
        NotSupported: the server has none at all.
        StoreDenied: the credentials lack s3:PutLifecycleConfiguration.
    """

    def request(client: "S3Client") -> None:
        rules: list[Any] = list(lifecycle.rules)
        more: Any = {_SIZE: lifecycle.size} if lifecycle.size else {}
        client.put_bucket_lifecycle_configuration(
            Bucket=caller.bucket, LifecycleConfiguration={"Rules": rules}, **more
        )

    caller.call(Verb.PUT_LIFECYCLE, "", request)
