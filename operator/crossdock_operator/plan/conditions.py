"""Conditions by Kubernetes' conventions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from crossdock_operator.api.common import PAUSED
from crossdock_operator.kinds import Object

Status: TypeAlias = Literal["True", "False", "Unknown"]
YES: Final = "True"
NO: Final = "False"
UNKNOWN: Final = "Unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """One condition as it is now."""

    type: str
    status: Status
    reason: str
    message: str = ""


def said(status: Object, kind: str) -> Answer | None:
    """Return a condition as a status has it; None: it has none of this type."""
    for each in status.get("conditions", ()):
        if each["type"] == kind:
            return Answer(kind, each["status"], each["reason"], each.get("message", ""))
    return None


def paused(*, now: bool) -> list[Answer]:
    """Return the condition of what is paused; what is not has none."""
    message = f"nothing is changed until spec.paused or the annotation {PAUSED} is taken away"
    return [Answer("Paused", YES, "AskedFor", message)] if now else []


def conditions(
    answers: Iterable[Answer], *, before: Iterable[Object], generation: int, now: str
) -> list[Object]:
    """Return conditions; where the status is as before, so is the time of its transition."""
    known = {condition["type"]: condition for condition in before}
    found = []
    for answer in answers:
        last = known.get(answer.type, {})
        since = last["lastTransitionTime"] if last.get("status") == answer.status else now
        found.append(
            {
                "type": answer.type,
                "status": answer.status,
                "reason": answer.reason,
                "message": answer.message,
                "observedGeneration": generation,
                "lastTransitionTime": since,
            }
        )
    return found
