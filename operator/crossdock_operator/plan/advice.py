"""What is wrong with a cluster or a job, by its conditions, and what a person can do."""

from dataclasses import dataclass
from typing import Final

from crossdock_operator.kinds import Object
from crossdock_operator.plan.conditions import NO, UNKNOWN, YES


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str
    """ShuffleCluster or ShuffleJob."""
    namespace: str
    name: str
    condition: str
    reason: str
    message: str
    remedy: str
    """What to do; empty: wait, or what the message says."""


_WRONG: Final = {
    ("Available", NO),
    ("Degraded", YES),
    ("StoreReachable", NO),
    ("StorageClean", NO),
    ("StorageClean", UNKNOWN),
    ("Accepted", NO),
    ("Ready", NO),
    ("Failed", YES),
    ("Paused", YES),
}
_FINE_REASONS: Final = frozenset({"ScaledToZero", "NotChecked", "Deleting"})
"""What these say is asked for, or not known yet."""
_WRONG_REASONS: Final = frozenset({"Refused", "NoLifecycleRule", "WaitsForWorkers"})
"""What these say is wrong whatever the status of the condition."""

_REMEDIES: Final = {
    "NoWorkersReady": "kubectl get pods -l app.kubernetes.io/instance={name} says why none is",
    "WorkersNotReady": "kubectl get pods -l app.kubernetes.io/instance={name} says which are not",
    "NotAllowed": "give the operator the right, or make room in the quota or policy that says so",
    "Refused": "change what the API server refuses, most likely in the pod template",
    "Unreachable": "look at spec.store: url, endpoint and credentials",
    "Denied": "give these rights to the credentials of spec.store",
    "NotProbed": "look at spec.store: its Secret must be there",
    "NoLifecycleRule": "set the rules: crossdock store lifecycle; or store.lifecycleCheck: Ignore",
    "Orphans": "kubectl crossdock audit --now -n {namespace} deletes what is old enough",
    "NotAllKnown": "bring back the workers that do not answer, or declare them gone",
    "NotAudited": "look at the operator's log",
    "ClusterNotFound": "make the ShuffleCluster, or make the job anew with another clusterRef",
    "NamespaceNotAllowed": "ask for the namespace in allowedNamespaces of the cluster",
    "QuotaTooLarge": "make the job anew with a smaller quota",
    "InvalidStages": "crossdock validate says it by line; make the job anew",
    "InvalidPodTemplate": "make the job anew with another pod template",
    "StoreNotReady": "kubectl crossdock status -n {namespace} says what the store lacks",
    "TaskFailed": "kubectl crossdock logs {name} -n {namespace}",
    "AskedFor": "take spec.paused or the annotation crossdock.dev/paused away",
    "WaitsForWorkers": "kubectl crossdock status says which workers do not answer",
    "TooManyTasks": "make the job anew with fewer tasks",
}


_SAID_BY_OTHERS: Final = "Degraded"
"""A condition that sums up what others say better, if they do."""


def wrong(kind: str, namespace: str, name: str, status: Object) -> list[Finding]:
    """Return what a cluster's or a job's conditions say is wrong.

    Args:
        kind: ShuffleCluster or ShuffleJob.
        namespace: of the object.
        name: of the object.
        status: of the object; empty: nobody has looked at it yet.
    """
    found = [
        Finding(
            kind=kind,
            namespace=namespace,
            name=name,
            condition=each["type"],
            reason=each["reason"],
            message=each.get("message", ""),
            remedy=_REMEDIES.get(each["reason"], "").format(name=name, namespace=namespace),
        )
        for each in status.get("conditions") or ()
        if _is_wrong(each)
    ]
    others = {each.condition for each in found} & {"Available", "Progressing"}
    return [each for each in found if not (others and each.condition == _SAID_BY_OTHERS)]


def _is_wrong(condition: Object) -> bool:
    if condition["reason"] in _FINE_REASONS:
        return False
    judged = (condition["type"], condition["status"])
    return judged in _WRONG or condition["reason"] in _WRONG_REASONS
