"""The status of a ShuffleCluster, from what is observed."""

from collections.abc import Sequence
from typing import Final

from crossdock_operator.kinds import STATEFUL_SET, Object
from crossdock_operator.plan import names
from crossdock_operator.plan.cluster import Observed, replicas, waits_for
from crossdock_operator.plan.conditions import NO, YES, Answer, conditions, paused
from crossdock_operator.plan.findings import (
    NOTHING,
    Findings,
    storage_clean,
    storage_status,
    store_reachable,
)
from crossdock_operator.plan.usage import Usage
from crossdock_operator.records import Child, ChildKey, Cluster

_MESSAGE_CHARACTERS: Final = 1024


def cluster_status(
    observed: Observed,
    *,
    refused: str,
    now: str,
    found: Findings = NOTHING,
    usage: Usage | None = None,
    more: Sequence[Answer] = (),
    draining: int = 0,
) -> Object:
    """Return the whole status.

    Args:
        observed: what is known.
        refused: what the API server said of an object that it did not take; else empty.
        now: the time, as RFC 3339 has it.
        found: in its store.
        usage: of its jobs; None: as it was said last.
        more: conditions of what not every cluster has.
        draining: worker pods that are about to go.
    """
    cluster = observed.cluster
    wanted = replicas(cluster)
    workers = observed.children.get(
        ChildKey(STATEFUL_SET.name, names.workers(cluster)), Child(mark="", settled=False)
    )
    rolled_out = workers.settled and workers.replicas == workers.updated == wanted
    selector = names.pod_selector(cluster)
    answers = _answers(
        workers, wanted, rolled_out=rolled_out, refused=refused, waits=waits_for(observed)
    )
    answers += [store_reachable(cluster, found), storage_clean(cluster, found)]
    storage = storage_status(cluster, found)
    used = cluster.status.get("usage") if usage is None else usage.to_json()
    return {
        "observedGeneration": cluster.generation,
        "phase": _phase(observed, workers, wanted, rolled_out=rolled_out, refused=refused),
        "workers": {
            "replicas": workers.replicas,
            "ready": workers.ready,
            "updated": workers.updated,
            "draining": draining,
        },
        "summary": f"{workers.ready}/{wanted}",
        "selector": selector,
        "endpoint": names.endpoint(cluster),
        **({"usage": used} if used else {}),
        **({"storage": storage} if storage else {}),
        "conditions": conditions(
            [*answers, *more, *paused(now=cluster.paused)],
            before=cluster.status.get("conditions", ()),
            generation=cluster.generation,
            now=now,
        ),
    }


def moves(cluster: Cluster, workers: Child) -> bool:
    """Return whether worker pods come, go, or are not all well."""
    counts = {workers.replicas, workers.updated, workers.ready}
    return not workers.settled or counts != {replicas(cluster)}


def _phase(
    observed: Observed, workers: Child, wanted: int, *, rolled_out: bool, refused: str
) -> str:
    if observed.cluster.deleting:
        return "Deleting"
    if observed.cluster.paused:
        return "Paused"
    if refused:
        return "Degraded"
    if not rolled_out:
        return "Progressing"
    return "Ready" if workers.ready == wanted else "Pending" if not workers.ready else "Degraded"


def _answers(
    workers: Child, wanted: int, *, rolled_out: bool, refused: str, waits: str
) -> list[Answer]:
    ready = f"{workers.ready} of {wanted} worker pods are ready"
    if refused:
        message = refused[:_MESSAGE_CHARACTERS]
        progressing = Answer("Progressing", NO, "Refused", message)
    elif waits:
        progressing = Answer("Progressing", YES, "WaitsForEarlier", waits)
    elif rolled_out:
        progressing = Answer("Progressing", NO, "RolledOut", "all pods are of the newest spec")
    else:
        message = f"{workers.updated} of {wanted} pods are of the newest spec"
        progressing = Answer("Progressing", YES, "RollingOut", message)
    available = Answer("Available", YES, "WorkersReady", ready)
    if not workers.ready:
        reason = "NoWorkersReady" if wanted else "ScaledToZero"
        available = Answer("Available", NO, reason, ready)
    degraded = Answer("Degraded", NO, "AsWanted")
    if refused:
        degraded = Answer("Degraded", YES, "Refused", "see the condition Progressing")
    elif workers.ready < wanted:
        degraded = Answer("Degraded", YES, "WorkersNotReady", ready)
    return [available, progressing, degraded]
