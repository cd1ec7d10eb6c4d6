"""How many objects are not well, for metrics that have no names of objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB
from crossdock_operator.plan.conditions import NO, YES, said
from crossdock_operator.records import Cluster, Job

_BAD: Final[Mapping[str, str]] = {
    "Available": NO,
    "Degraded": YES,
    "StoreReachable": NO,
    "StorageClean": NO,
}
"""Conditions of a ShuffleCluster, and what each says when something is wrong."""
_ASKED_FOR: Final = "ScaledToZero"


@dataclass(frozen=True, slots=True)
class Tally:
    """What is not well now."""

    failing: Mapping[str, int]
    """ShuffleClusters, by condition that says so."""
    orphans: int
    """Objects, uploads and files of no job, as the newest audits found them."""
    orphan_bytes: int
    deleting_seconds: Mapping[str, float]
    """For how long the one that has waited longest is being deleted, by kind; 0: there is none."""


def tally(clusters: Iterable[Cluster], jobs: Iterable[Job], now: float) -> Tally:
    """Count what is not well, at a time in seconds since 1970."""
    failing = dict.fromkeys(_BAD, 0)
    deleting = {SHUFFLE_CLUSTER.name: 0.0, SHUFFLE_JOB.name: 0.0}
    orphans = orphan_bytes = 0
    for cluster in clusters:
        storage = cluster.status.get("storage", {})
        orphans += storage.get("orphans", 0)
        orphan_bytes += storage.get("orphanBytes", 0)
        if cluster.deleting:
            waits = max(deleting[SHUFFLE_CLUSTER.name], now - cluster.deleted)
            deleting[SHUFFLE_CLUSTER.name] = waits
            continue
        for kind, bad in _BAD.items():
            answer = said(cluster.status, kind)
            if answer is not None and answer.status == bad and answer.reason != _ASKED_FOR:
                failing[kind] += 1
    for job in jobs:
        if job.deleting:
            deleting[SHUFFLE_JOB.name] = max(deleting[SHUFFLE_JOB.name], now - job.deleted)
    return Tally(failing, orphans, orphan_bytes, deleting)
