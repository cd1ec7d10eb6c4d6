"""What is said of a cluster's store, from what was found there."""

import datetime as dt
from dataclasses import dataclass
from typing import Final

from crossdock_operator.kinds import Object
from crossdock_operator.plan import names
from crossdock_operator.plan.conditions import NO, UNKNOWN, YES, Answer, said
from crossdock_operator.records import Cluster
from crossdock_operator.storage.tasks import Audited, Probed

_MESSAGE_CHARACTERS: Final = 2048
_NEEDED: Final = {
    "list": "list objects",
    "uploads": "list unfinished uploads",
    "abort": "abort uploads",
    "delete": "delete objects",
}
"""What the end of a job takes; with credentials of its own a cluster has to write, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Of one cluster; what is None was not found out yet by this operator process."""

    probed: Probed | None = None
    probe_problem: str = ""
    """Why the newest probe could not be made."""
    audited: Audited | None = None
    audit_problem: str = ""
    audited_at: str = ""
    """When the newest audit ended, RFC 3339."""


NOTHING: Final = Findings()


def store_reachable(cluster: Cluster, found: Findings) -> Answer:
    """Return the condition StoreReachable."""
    if found.probe_problem:
        return Answer("StoreReachable", NO, "NotProbed", _cut(found.probe_problem))
    if found.probed is None:
        return _as_before(cluster, "StoreReachable")
    needed = dict(_NEEDED)
    if cluster.spec.store.service_account_name is None:
        needed["put"] = "put objects"
    lacking = [verb for verb in needed if verb in found.probed.problems]
    if "list" in lacking:
        return Answer("StoreReachable", NO, "Unreachable", _cut(found.probed.problems["list"]))
    if lacking:
        whose = "the credentials" if "put" in needed else "the operator's own credentials"
        problem = found.probed.problems[lacking[0]]
        what = ", ".join(needed[verb] for verb in lacking)
        return Answer("StoreReachable", NO, "Denied", _cut(f"{whose} do not {what}: {problem}"))
    if found.probed.lifecycle:
        message = "; ".join(found.probed.lifecycle) + "; see `crossdock store lifecycle`"
        return Answer("StoreReachable", YES, "NoLifecycleRule", _cut(message))
    return Answer("StoreReachable", YES, "Probed", "")


def storage_clean(cluster: Cluster, found: Findings) -> Answer:
    """Return the condition StorageClean."""
    if found.audit_problem:
        return Answer("StorageClean", UNKNOWN, "NotAudited", _cut(found.audit_problem))
    if found.audited is None:
        return _as_before(cluster, "StorageClean")
    audited = found.audited
    if audited.orphans:
        silent = f"; these workers do not answer: {', '.join(audited.silent)}"
        message = (
            f"{audited.orphans} objects, uploads or files of {audited.orphan_bytes} bytes are of "
            "no job" + (silent if audited.silent else "; the next audit tries again")
        )
        return Answer("StorageClean", NO, "Orphans", _cut(message))
    if audited.unsure or audited.silent:
        silent = f"these workers do not answer: {', '.join(audited.silent)}"
        message = silent if audited.silent else f"of {audited.unsure} things it is not known"
        return Answer("StorageClean", UNKNOWN, "NotAllKnown", _cut(message))
    return Answer("StorageClean", YES, "Audited", "all that is there is of a ShuffleJob")


def storage_status(cluster: Cluster, found: Findings) -> Object | None:
    """Return status.storage; as before where nothing new is known."""
    audited = found.audited
    if audited is None:
        before: Object | None = cluster.status.get("storage")
        return before
    return {
        "lastAuditTime": found.audited_at,
        "storeBytes": audited.store_bytes,
        "workerBytes": audited.worker_bytes,
        "orphans": audited.orphans,
        "orphanBytes": audited.orphan_bytes,
        "deletedOrphans": audited.deleted,
        "auditRequests": audited.requests,
    }


def audit_due_seconds(cluster: Cluster, now: dt.datetime) -> float:
    """Return in how many seconds an operator that has just begun shall audit a cluster."""
    last = (cluster.status.get("storage") or {}).get("lastAuditTime")
    if not last or audit_is_asked(cluster):
        return 0.0
    age = (now - dt.datetime.fromisoformat(last)).total_seconds()
    return max(0.0, cluster.spec.audit.interval_seconds - max(age, 0.0))


def audit_is_asked(cluster: Cluster) -> bool:
    """Return whether somebody has asked for an audit since the newest one ended."""
    asked = cluster.annotations.get(names.AUDIT_ASKED_AT)
    last = (cluster.status.get("storage") or {}).get("lastAuditTime")
    if not asked:
        return False
    try:
        time = dt.datetime.fromisoformat(asked)
    except ValueError:
        return False  # it is no time
    if time.tzinfo is None:
        return False
    return not last or time > dt.datetime.fromisoformat(last)


def _as_before(cluster: Cluster, kind: str) -> Answer:
    """Return what was said last: an operator that begins has not looked yet."""
    not_checked = Answer(kind, UNKNOWN, "NotChecked", "nothing was looked at yet")
    return said(cluster.status, kind) or not_checked


def _cut(message: str) -> str:
    return message[:_MESSAGE_CHARACTERS]
