"""What is kept of objects that were seen: as much as decisions need."""

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from crossdock_operator.api.cluster import ShuffleClusterSpec
from crossdock_operator.api.common import GROUP, PAUSED
from crossdock_operator.api.job import ShuffleJobSpec
from crossdock_operator.api.reading import read
from crossdock_operator.jobs.batch import Batch, batch_of
from crossdock_operator.kinds import Object

RENEW_AT: Final = f"{GROUP}/renew-at"
MADE_OF: Final = f"{GROUP}/made-of"
"""On a Secret with a token: fingerprints of the key that signed it, and of the authority beside
it. Who reads it has what the key signed, which tells as much of the key."""
_KEYS: Final = "keys"
_PRIVATE: Final = "tls.key"
_AUTHORITY: Final = "ca.crt"


class Key(NamedTuple):
    """One of our objects."""

    namespace: str
    name: str


class Item(NamedTuple):
    """One of our objects and its kind: what the queue has."""

    kind: str
    key: Key


class ChildKey(NamedTuple):
    """An object of a cluster or job, in its namespace."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A ShuffleCluster."""

    key: Key
    uid: str
    generation: int
    deleting: bool
    spec: ShuffleClusterSpec
    status: Object
    version: str = ""
    """Its resourceVersion."""
    deleted: float = 0.0
    """When its deletion was asked for, seconds since 1970; 0: it was not."""
    finalizers: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Those of our group."""

    @property
    def paused(self) -> bool:
        """Whether nothing of it is to be changed."""
        return self.spec.paused or self.annotations.get(PAUSED) == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A ShuffleJob."""

    key: Key
    uid: str
    generation: int
    created: float = 0.0
    """Seconds since 1970."""
    deleting: bool
    finalizers: tuple[str, ...]
    spec: ShuffleJobSpec
    status: Object
    version: str = ""
    """Its resourceVersion."""
    deleted: float = 0.0
    """When its deletion was asked for, seconds since 1970; 0: it was not."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Those of our group."""

    @property
    def paused(self) -> bool:
        """Whether nothing of it is to be changed."""
        return self.annotations.get(PAUSED) == "true"

    @property
    def cluster(self) -> Key:
        """The key of the cluster that serves it."""
        ref = self.spec.cluster_ref
        return Key(ref.namespace or self.key.namespace, ref.name)


class Owner(NamedTuple):
    """The ShuffleCluster or ShuffleJob that an object belongs to, as it says itself."""

    name: str = ""
    uid: str = ""
    """Empty: it belongs to none."""

    def is_other(self, uid: str) -> bool:
        """Whether it is another one than that with this uid: an earlier one of the name, say."""
        return self.uid not in {"", uid}


NOBODY: Final = Owner()


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """An object that we made for a cluster or job."""

    mark: str
    """Changes with whatever anybody changes of it, but for its status."""
    owner: Owner = NOBODY
    """By its labels it is of a name; and by this of one that had or has the name."""
    replicas: int = 0
    ready: int = 0
    updated: int = 0
    settled: bool = True
    """Whether its status is about its newest spec."""
    batch: "Batch | None" = None
    """Of a Job that runs tasks."""
    renew_at: float = 0.0
    """When a Secret is to be looked at again, seconds since 1970; 0: never."""
    has: frozenset[str] = frozenset()
    """Fingerprints of the signing keys, or of the authority, that a Secret has."""
    made_of: str = ""
    """Fingerprints of the key, and of the authority, that a Secret with a token was made of."""

    def is_good(self, *known: frozenset[str]) -> bool:
        """Whether what a Secret with a token was made of is there still.

        Args:
            known: the keys, and the authorities, that are there now. Of none nothing is known.
        """
        made_of = self.made_of.split()
        return all(each in now for each, now in zip(made_of, known, strict=False) if now)


def cluster_of(body: Object) -> Cluster:
    """Return what counts of a ShuffleCluster."""
    metadata = body["metadata"]
    return Cluster(
        key=Key(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata["generation"],
        deleting="deletionTimestamp" in metadata,
        spec=read(ShuffleClusterSpec, body["spec"]),
        status=dict(body.get("status") or {}),
        version=metadata["resourceVersion"],
        deleted=_deleted(metadata),
        finalizers=tuple(metadata.get("finalizers") or ()),
        annotations=_ours(metadata),
    )


def job_of(body: Object) -> Job:
    """Return what counts of a ShuffleJob."""
    metadata = body["metadata"]
    return Job(
        key=Key(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata["generation"],
        created=seconds_of(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        finalizers=tuple(metadata.get("finalizers") or ()),
        spec=read(ShuffleJobSpec, body["spec"]),
        status=dict(body.get("status") or {}),
        version=metadata["resourceVersion"],
        deleted=_deleted(metadata),
        annotations=_ours(metadata),
    )


def _deleted(metadata: Object) -> float:
    time = metadata.get("deletionTimestamp")
    return 0.0 if time is None else seconds_of(time)


def _ours(metadata: Object) -> dict[str, str]:
    found = metadata.get("annotations") or {}
    return {name: text for name, text in found.items() if name.startswith(f"{GROUP}/")}


def child_of(body: Object) -> Child:
    """Return what counts of a child."""
    status = body.get("status") or {}
    annotations = body["metadata"].get("annotations") or {}
    return Child(
        mark=mark_of(body),
        owner=owner_of(body),
        replicas=status.get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        updated=status.get("updatedReplicas", 0),
        settled=status.get("observedGeneration", 0) >= body["metadata"].get("generation", 0),
        batch=batch_of(body),
        renew_at=float(annotations.get(RENEW_AT, 0)),
        has=_has(body.get("data") or {}),
        made_of=annotations.get(MADE_OF, ""),
    )


def _has(data: Mapping[str, str]) -> frozenset[str]:
    if _KEYS in data:
        lines = (line.strip() for line in _text(data[_KEYS]).splitlines())
        return frozenset(fingerprint(line) for line in lines if line)
    if _PRIVATE in data:  # a certificate's Secret: others have the authority besides
        return frozenset([fingerprint(_text(data.get(_AUTHORITY, "")))])
    return frozenset()


def _text(data: str) -> str:
    return base64.b64decode(data).decode(errors="replace")


def fingerprint(text: str) -> str:
    """Return by what a key or an authority is known again."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def owner_of(body: Object) -> Owner:
    """Return which of our objects another one belongs to."""
    for each in body["metadata"].get("ownerReferences") or ():
        if each["apiVersion"].startswith(f"{GROUP}/"):
            return Owner(each["name"], each["uid"])
    return NOBODY


def seconds_of(time: str) -> float:
    """Return a time of the API server in seconds since 1970."""
    return dt.datetime.fromisoformat(time).timestamp()


def mark_of(body: Object) -> str:
    """Return a digest of an object as it is wanted, without what the server keeps of it."""
    passing = {"managedFields", "resourceVersion"}
    metadata = {k: v for k, v in body["metadata"].items() if k not in passing}
    return digest({**{k: v for k, v in body.items() if k != "status"}, "metadata": metadata})


def digest(value: Mapping[str, object]) -> str:
    """Return a digest of a JSON value that does not depend on the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
