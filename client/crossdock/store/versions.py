"""Buckets that keep versions: there, what is deleted stays as an older version of nothing.

Listings show current objects alone, so no proof that nothing is left says anything of versions.
Only a lifecycle rule takes them away (rules.py): deleting each by its id would need rights that
nobody should have to give.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class OldVersions:
    """What a look has found below a prefix."""

    count: int
    """Versions that are not current, and marks of deleted objects."""
    more: bool
    """Whether there was more to look at."""


@runtime_checkable
class HasVersions(Protocol):
    """A bucket that may keep versions."""

    @property
    def url(self) -> str:
        """Where it is."""

    def keeps_versions(self) -> bool | None:
        """Return whether it does, also if that is suspended: what there is stays.

        None: the credentials do not say.
        """

    def old_versions(self, prefix: str) -> OldVersions | None:
        """Look at some below a prefix, by a few requests; None: the credentials do not list them.

        Raises:
            StoreUnavailable: the bucket does not answer.
        """
