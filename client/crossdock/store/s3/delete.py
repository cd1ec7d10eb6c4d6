"""Deletes of S3: many keys in a request, each with an answer of its own."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from crossdock.store.api import Verb
from crossdock.store.s3.calls import Caller
from crossdock.store.s3.errors import DeleteRefused

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_AT_ONCE: Final = 1000  # as many as a request takes
_NOT_THERE: Final = {"NoSuchKey"}


def delete(caller: Caller, keys: Iterable[str]) -> None:
    """Delete objects. See `crossdock.store.api.Store.delete`."""
    for batch in _batches(keys):
        caller.call(Verb.DELETE, batch[0], _Batch(caller, batch))


class _Batch:
    """The keys that are still to be deleted; each try asks for fewer."""

    def __init__(self, caller: Caller, keys: list[str]) -> None:
        self._caller = caller
        self._left = keys

    def __call__(self, client: "S3Client") -> None:
        """Send the request once.

        Raises:
            DeleteRefused: the answer names keys that were not deleted.
        """
        prefix = self._caller.prefix
        answer = client.delete_objects(
            Bucket=self._caller.bucket,
            Delete={"Objects": [{"Key": prefix + key} for key in self._left], "Quiet": True},
        )
        errors = [e for e in answer.get("Errors", []) if e.get("Code") not in _NOT_THERE]
        if errors:
            self._left = [error["Key"].removeprefix(prefix) for error in errors]
            raise DeleteRefused(errors[0].get("Code", ""), errors[0].get("Message", ""))


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(keys)
    while batch := list(islice(rest, _AT_ONCE)):
        yield batch
