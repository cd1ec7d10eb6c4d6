"""Objects that own jobs: which kinds may, what is seen of one, and what that means for its job."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from crossdock.errors import ConfigError
from crossdock_operator.api.job import OwnerReference
from crossdock_operator.kinds import JOB, POD, Kind, Object
from crossdock_operator.records import Job

WAIT_SECONDS: Final = 600
"""For so long from its creation a job waits for an owner that was never there."""
_MESSAGE_CHARACTERS: Final = 500
_GOOD: Final = frozenset({"complete", "completed", "succeeded"})
_BAD: Final = frozenset({"failed"})


@dataclass(frozen=True, slots=True, order=True)
class OwnerKind:
    """A kind of objects that may own jobs, in any of its versions."""

    name: str
    group: str = ""
    resource: str = field(default="", compare=False)
    """The resource's name; empty: as kinds are commonly named."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read KIND or KIND.GROUP, or either with =RESOURCE.

        Raises:
            ConfigError: it is none of these.
        """
        kind, equals, resource = text.partition("=")
        name, _, group = kind.partition(".")
        named = name.isalnum() and name[0].isupper() and not kind.endswith(".")
        if not named or (equals and not resource):
            raise ConfigError(
                f"{text!r} is no kind of owners",
                hint="such as Job.batch, SparkApplication.sparkoperator.k8s.io or Mesh.net=meshes",
            )
        return cls(name, group, resource)

    def __str__(self) -> str:
        return f"{self.name}.{self.group}" if self.group else self.name

    @property
    def plural(self) -> str:
        """The resource's name."""
        if self.resource:
            return self.resource
        name = self.name.lower()
        if name.endswith(("s", "x", "z", "ch", "sh")):
            return f"{name}es"
        if name.endswith("y") and name[-2:-1] not in set("aeiou"):
            return f"{name[:-1]}ies"
        return f"{name}s"

    def kind(self, version: str = "v1") -> Kind:
        """Return where the API server has such objects."""
        return Kind(name=self.name, plural=self.plural, group=self.group, version=version)


ALWAYS: Final = (OwnerKind(POD.name), OwnerKind(JOB.name, JOB.group))
"""Kinds that need no setting."""


def kind_of(owner: OwnerReference) -> OwnerKind:
    """Return the kind that a reference names."""
    return OwnerKind(owner.kind, owner.api_version.rpartition("/")[0])


def place_of(owner: OwnerReference, allowed: Iterable[OwnerKind]) -> Kind:
    """Return where the API server has what a reference names, of one of the kinds allowed."""
    wanted = kind_of(owner)
    known = next((kind for kind in allowed if kind == wanted), wanted)
    return known.kind(owner.api_version.rpartition("/")[2])


def refusal(job: Job, allowed: Iterable[OwnerKind]) -> str:
    """Return why an owner of this kind is not looked after; empty: it is, or there is none."""
    owner, allowed = job.spec.owner, tuple(allowed)
    if owner is None or kind_of(owner) in allowed:
        return ""
    kind = kind_of(owner)
    return (
        f"the operator looks after owners of the kinds {', '.join(map(str, allowed))}, not {kind}: "
        f"start it with --owner-kinds {kind}, and let its role list {kind.plural}"
    )


# -- what is seen --------------------------------------------------------------------------


class Fate(StrEnum):
    """How an owner is."""

    RUNS = "runs"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Sight:
    """An owner as it was seen last."""

    uid: str
    fate: Fate
    message: str = ""
    """Why it failed, if it says so."""
    deleting: bool = False


def sight_of(body: Object) -> Sight:
    """Return what counts of an owner of any kind.

    It has ended where a condition of its status says so, or a phase: `status.phase` as of pods,
    `status.applicationState.state` as of Spark applications. What says neither goes on.
    """
    status = body.get("status") or {}
    application = status.get("applicationState") or {}
    words = [(status.get("phase"), status), (application.get("state"), application)]
    words += [(c["type"], c) for c in status.get("conditions") or () if c.get("status") == "True"]
    uid, deleting = body["metadata"]["uid"], "deletionTimestamp" in body["metadata"]
    for fate, known in ((Fate.FAILED, _BAD), (Fate.SUCCEEDED, _GOOD)):
        for word, says in words:
            if isinstance(word, str) and word.lower() in known:
                told = (says.get("reason"), says.get("message") or says.get("errorMessage"))
                said = ": ".join(filter(None, told))[:_MESSAGE_CHARACTERS]
                return Sight(uid, fate, said, deleting)
    return Sight(uid, Fate.RUNS, deleting=deleting)


# -- what follows --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwnerEnd:
    """Why a job ends with its owner."""

    reason: str
    message: str
    good: bool = False
    """Whether the owner succeeded."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What its owner means for a job."""

    uid: str = ""
    """Of the owner, once it was seen."""
    waits: str = ""
    """Why the owner is not known to be there; empty: it is, or there is none."""
    end: OwnerEnd | None = None
    again_seconds: float | None = None
    """When another verdict comes of time alone."""


def verdict(job: Job, sight: Sight | None, *, problem: str, now: float) -> Verdict:
    """Return what its owner means for a job that has one.

    Args:
        job: the job; its status has the uid of the owner that was seen before.
        sight: of the object that has the owner's name; None: there is none.
        problem: why it is not known whether there is one; then `sight` does not count.
        now: seconds since 1970.
    """
    owner = job.spec.owner
    assert owner is not None
    what, known = f"{owner.kind} {owner.name}", job.status.get("ownerUid", "")
    if problem:
        return Verdict(known, f"it is not known whether {what} is there: {problem}")
    if sight is not None and sight.deleting and not known:
        sight = None  # an earlier job's, most likely: the next of the name is ours
    if sight is None and not known:
        left = job.created + WAIT_SECONDS - now
        if left > 0:
            said = f"there is no {what} yet; the job waits for {WAIT_SECONDS} s from its creation"
            return Verdict(waits=said, again_seconds=left)
        return Verdict(end=OwnerEnd("OwnerNotFound", f"there was no {what} in {WAIT_SECONDS} s"))
    if sight is None or (known and sight.uid != known):
        gone = "was deleted" if sight is None else "was replaced by another of its name"
        return Verdict(known, end=OwnerEnd("OwnerDeleted", f"{what} {gone}"))
    if sight.fate is Fate.RUNS:
        return Verdict(sight.uid)
    good = sight.fate is Fate.SUCCEEDED
    said = f"{what} has {sight.fate}" + (f": {sight.message}" if sight.message else "")
    return Verdict(
        sight.uid, end=OwnerEnd("OwnerSucceeded" if good else "OwnerFailed", said, good=good)
    )
