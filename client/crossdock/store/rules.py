"""Lifecycle rules of a bucket: ours, merged with those of others. Pure.

The last net under everything: the store itself aborts uploads that nobody finishes, and deletes
what is older than any job. Where the bucket keeps versions (versions.py), a second rule deletes
those that are not current. Others' rules are kept as they are; ours are known by their IDs.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from crossdock.errors import ConfigError

ABORT_DAYS: Final = 1
EXPIRE_DAYS: Final = 30
VERSION_DAYS: Final = 1
"""After which what was deleted goes for good, where the bucket keeps versions: S3's least."""

Rule = Mapping[str, Any]
"""As S3 has it: https://docs.aws.amazon.com/AmazonS3/latest/API/API_LifecycleRule.html."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """All of a bucket's configuration, which is read and written as a whole."""

    rules: Sequence[Rule]
    size: str = ""
    """TransitionDefaultMinimumObjectSize: beside the rules, and to be written back with them."""


@runtime_checkable
class HasLifecycle(Protocol):
    """A store that has such rules."""

    @property
    def prefix(self) -> str:
        """Before every key of the bucket that is of this store."""

    def read_lifecycle(self) -> Lifecycle | None:
        """Return the bucket's rules; None: the server has none at all."""

    def write_lifecycle(self, lifecycle: Lifecycle) -> None:
        """Replace the bucket's rules."""


_OURS: Final = "crossdock"
_ABORT: Final = "AbortIncompleteMultipartUpload"
_NONCURRENT: Final = "NoncurrentVersionExpiration"
_MARKS: Final = "ExpiredObjectDeleteMarker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """What the store shall do by itself."""

    prefix: str
    """In the bucket; only what begins so is touched."""
    abort_days: int = ABORT_DAYS
    """After which an unfinished upload goes."""
    expire_days: int = EXPIRE_DAYS
    """After which an object goes: no job lives so long."""
    versions: bool = False
    """Whether the bucket keeps versions, or has kept some."""

    def __post_init__(self) -> None:
        """Refuse what would touch others' objects, or what no store takes."""
        if not self.prefix:
            raise ConfigError(
                "rules for a whole bucket would delete what is not ours",
                hint="put a prefix into the store's URL: s3://bucket/prefix",
            )
        for name in ("abort_days", "expire_days"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be a whole number from 1 on")

    @property
    def name(self) -> str:
        """The ID of our first rule; that of the other one begins with it."""
        return f"{_OURS}-{hashlib.sha256(self.prefix.encode()).hexdigest()[:12]}"

    @property
    def names(self) -> frozenset[str]:
        """The IDs of our rules."""
        return frozenset({self.name, self._versions_name})

    @property
    def _versions_name(self) -> str:
        return f"{self.name}-versions"

    def has_versions(self, there: Sequence[Rule]) -> bool:
        """Whether our rule for old versions is among a bucket's."""
        return any(rule.get("ID") == self._versions_name for rule in there)

    def rules(self, *, old_form: bool) -> list[Rule]:
        """Return our rules.

        What is current has one, as MinIO refuses a rule that does nothing but abort. Versions have
        another, as S3 takes no marks of deleted objects beside a number of days.

        Args:
            old_form: with the prefix where S3 had it first: it takes no mixture of the two.
        """
        where: dict[str, Any] = {"Filter": {"Prefix": self.prefix}}
        if old_form:
            where = {"Prefix": self.prefix}
        current = {
            "ID": self.name,
            "Status": "Enabled",
            **where,
            "Expiration": {"Days": self.expire_days},
            _ABORT: {"DaysAfterInitiation": self.abort_days},
        }
        old = {
            "ID": self._versions_name,
            "Status": "Enabled",
            **where,
            "Expiration": {_MARKS: True},
            _NONCURRENT: {"NoncurrentDays": VERSION_DAYS},
        }
        return [current, old] if self.versions else [current]

    def merged(self, there: Sequence[Rule]) -> list[Rule]:
        """Return the rules of a bucket with ours among them; others' stay as they are."""
        others = [rule for rule in there if rule.get("ID") not in self.names]
        return [*others, *self.rules(old_form=any("Prefix" in rule for rule in others))]

    def lacks(self, there: Sequence[Rule]) -> list[str]:
        """Return what a bucket's rules do not do that they should, in words; whoever made them."""
        problems = []
        if not any(self._aborts(rule) for rule in there):
            problems.append(
                f"no rule aborts unfinished uploads below {self.prefix} after {self.abort_days}"
                " days or fewer"
            )
        if not any(self._expires(rule) for rule in there):
            problems.append(
                f"no rule expires objects below {self.prefix} after {self.expire_days} days"
            )
        if self.versions and not any(self._ends_versions(rule) for rule in there):
            problems.append(
                f"the bucket keeps versions, and no rule deletes those below {self.prefix} that are"
                f" not current after {VERSION_DAYS} days: what was deleted stays"
            )
        if self.versions and not any(self._ends_marks(rule) for rule in there):
            problems.append(
                "the bucket keeps versions, and no rule deletes the marks of deleted objects below"
                f" {self.prefix}"
            )
        return problems

    def conflicts(self, there: Sequence[Rule]) -> list[str]:
        """Return which rules of a bucket delete what may still be needed, in words."""
        return [
            f"rule {rule.get('ID', '')!r} expires objects below {self.prefix} after {days} days:"
            f" sooner than {self.expire_days}"
            for rule in there
            if (days := self._days(rule)) and days < self.expire_days
        ]

    def _aborts(self, rule: Rule) -> bool:
        days = rule.get(_ABORT, {}).get("DaysAfterInitiation")
        return self._covers(rule) and isinstance(days, int) and 0 < days <= self.abort_days

    def _expires(self, rule: Rule) -> bool:
        return self._covers(rule) and self._days(rule) == self.expire_days

    def _ends_versions(self, rule: Rule) -> bool:
        old = rule.get(_NONCURRENT, {})
        days = old.get("NoncurrentDays")
        in_time = isinstance(days, int) and 0 < days <= VERSION_DAYS
        return self._covers(rule) and in_time and not old.get("NewerNoncurrentVersions")

    def _ends_marks(self, rule: Rule) -> bool:
        return self._covers(rule) and rule.get("Expiration", {}).get(_MARKS) is True

    def _days(self, rule: Rule) -> int:
        """Return after how many days a rule in force expires something below the prefix, or 0."""
        days = rule.get("Expiration", {}).get("Days")
        where = _prefix_of(rule)
        touches = where.startswith(self.prefix) or self.prefix.startswith(where)
        enabled = rule.get("Status") == "Enabled"
        return days if isinstance(days, int) and touches and enabled else 0

    def _covers(self, rule: Rule) -> bool:
        """Whether a rule is in force for all that is below the prefix."""
        if rule.get("Status") != "Enabled":
            return False
        if rule.get("Filter", {}).keys() - {"Prefix"}:  # for some objects only: by tag, by size
            return False
        return self.prefix.startswith(_prefix_of(rule))


def _prefix_of(rule: Rule) -> str:
    """Return the prefix of a rule, in whichever of S3's three forms."""
    filter_ = rule.get("Filter", {})
    found = filter_.get("And", {}).get("Prefix") or filter_.get("Prefix") or rule.get("Prefix")
    return str(found or "")


def lost(before: Sequence[Rule], after: Sequence[Rule], net: Net) -> list[str]:
    """Return the ids of others' rules that a bucket had and does not have any more."""
    kept = {str(rule.get("ID", "")) for rule in after}
    return [
        name
        for rule in before
        if (name := str(rule.get("ID", ""))) not in kept and name not in net.names
    ]
