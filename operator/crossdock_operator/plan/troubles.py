"""Why worker pods are not ready, by what Kubernetes says of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from crossdock_operator.kinds import Object

_MESSAGE_CHARACTERS: Final = 400
_STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})
"""What every pod waits for a while. A missing Secret or volume is told in its events alone."""


@dataclass(frozen=True, slots=True, order=True)
class Trouble:
    """What one pod waits for. In their order: the first one is the one to tell."""

    may_pass: bool
    """Whether every pod waits for it a while."""
    length: int
    """Of the name: pod 9 is before pod 10."""
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Pods:
    """The worker pods of a cluster, when they were listed."""

    draining: int = 0
    """Those that are about to go."""
    trouble: str = ""
    """Why one of them is not ready, or why there is none; empty: nothing is known."""


def trouble_of(pod: Object) -> Trouble | None:
    """Return what a pod waits for; None: nothing that it says."""
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    reason, message = _waits(status)
    if not reason:
        return None
    may_pass = reason in _STARTING
    if may_pass:
        message = f"if it stays so, `kubectl describe pod {name}` tells why"
    parts = [name, reason, message[:_MESSAGE_CHARACTERS]]
    return Trouble(may_pass, len(name), name, ": ".join(part for part in parts if part))


def summary(troubles: Iterable[Trouble], *, pods: int, wanted: int, owner: str) -> str:
    """Return what to tell of a cluster's pods; empty: nothing.

    Args:
        troubles: of its pods.
        pods: how many there are.
        wanted: how many there shall be.
        owner: name of their StatefulSet.
    """
    first = min(troubles, default=None)
    if first is not None and not first.may_pass:
        return first.text
    if pods < wanted:
        have = f"{pods} of {wanted} pods are there"
        return f"{have}: if it stays so, `kubectl describe statefulset {owner}` tells why"
    return "" if first is None else first.text


def _waits(status: Object) -> tuple[str, str]:
    """Return a reason and a message; both empty: none."""
    if status.get("phase") == "Failed":
        return status.get("reason") or "Failed", status.get("message", "")
    for each in status.get("conditions") or ():
        if (each["type"], each.get("reason")) == ("PodScheduled", "Unschedulable"):
            return "Unschedulable", each.get("message", "")
    for kind in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(kind) or ():
            waiting = (each.get("state") or {}).get("waiting") or {}
            if reason := waiting.get("reason", ""):
                last = (each.get("lastState") or {}).get("terminated")
                if reason == "CrashLoopBackOff" and last:
                    return reason, _last_words(last)
                return reason, waiting.get("message", "")
    return "", ""


def _last_words(terminated: Object) -> str:
    ended = f"{terminated.get('reason', 'Error')}, exit code {terminated.get('exitCode')}"
    message = (terminated.get("message") or "").strip()[-_MESSAGE_CHARACTERS + len(ended) + 2 :]
    return f"{ended}: {message}" if message else ended
