"""The status of a ShuffleJob, from what is observed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from crossdock_operator.kinds import Object
from crossdock_operator.plan.conditions import NO, UNKNOWN, YES, Answer, conditions, paused
from crossdock_operator.plan.targets import RELEASABLE, SCALED, ExecutorsSeen
from crossdock_operator.plan.usage import FIELDS, Usage
from crossdock_operator.records import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """One stage, for the status."""

    name: str
    phase: str = "Waiting"
    tasks: int = 0
    done: int = 0
    attempts: int = 0
    partitions: int = 0
    bytes: int = 0

    def to_json(self) -> Object:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of a job."""

    accepted: Answer
    ready: str | None = None
    """Empty: its workers know it and its connection Secret is there; else what it waits for.
    None: as it was said last."""
    stages: Sequence[StageRow] | None = None
    """None: as they were said last."""
    waits_for: str = ""
    """What its stages cannot go on without just now."""
    ended: bool = False
    failure: str | None = None
    """Why it failed; None: it succeeded."""
    reason: str = ""
    """Of its end, in one word."""
    done: str = "all stages are done"
    """What is told of a job that succeeded."""
    owner_uid: str = ""
    """Of its owner, once that was seen."""
    over: bool = False
    """Whether nothing is left to do for its stages."""
    connection: str = ""
    executors: ExecutorsSeen | None = None
    """None: as was said last."""
    usage: Usage | None = None
    """None: as it was said last."""
    durable: Answer | None = None
    """Whether its data outlives the workers; None: as it was said last."""


def job_status(job: Job, seen: Seen, *, now: str) -> Object:
    """Return the whole status.

    Args:
        job: the job, with its last status.
        seen: what is known of it.
        now: the time, as RFC 3339 has it.
    """
    last = job.status
    rows = last.get("stages") or []
    if seen.stages is not None:
        rows = [row.to_json() for row in seen.stages]
    answers = _answers(job, seen)
    status: Object = {
        "observedGeneration": job.generation,
        "phase": _phase(job, seen, answers),
        "conditions": conditions(
            answers, before=last.get("conditions", ()), generation=job.generation, now=now
        ),
    }
    if rows:
        done = sum(row["phase"] == "Done" for row in rows)
        status |= {"stages": rows, "progress": f"{done}/{len(rows)}"}
    if seen.usage is not None:
        status |= seen.usage.to_json()
    else:
        status |= {name: last[name] for name in FIELDS if name in last}
    if seen.executors is not None and seen.executors.numbers is not None:
        status["executors"] = dict(seen.executors.numbers)
    elif "executors" in last:
        status["executors"] = last["executors"]
    if connection := seen.connection or last.get("connectionSecret", ""):
        status["connectionSecret"] = connection
    if owner := seen.owner_uid or last.get("ownerUid", ""):
        status["ownerUid"] = owner
    return status


def paused_status(job: Job, *, now: str) -> Object:
    """Return the status of a job of which nothing is changed: as it was, but that it is paused."""
    before = job.status.get("conditions", ())
    answers = conditions(paused(now=True), before=before, generation=job.generation, now=now)
    return {
        **job.status,
        "observedGeneration": job.generation,
        "phase": "Paused",
        "conditions": [*(c for c in before if c["type"] != "Paused"), *answers],
    }


def is_true(status: Object, kind: str) -> bool:
    """Return whether a condition was True when the status was written."""
    return any(c["type"] == kind and c["status"] == YES for c in status.get("conditions", ()))


def has_ended(status: Object) -> bool:
    """Return whether a job had ended when its status was written."""
    return is_true(status, "Complete") or is_true(status, "Failed")


def only_numbers_differ(one: Object, other: Object) -> bool:
    """Return whether two statuses tell the same but for how far it has come."""

    def without(status: Object) -> Object:
        numbers = {*FIELDS, "executors"}
        kept = {name: value for name, value in status.items() if name not in numbers}
        rows = status.get("stages", ())
        return {**kept, "stages": [(row["name"], row["phase"], row["tasks"]) for row in rows]}

    return without(one) == without(other)


def row_after(row: StageRow, last: Object) -> StageRow:
    """Return a row with what an operator that took over has not seen itself."""
    for before in last.get("stages") or ():
        if before["name"] == row.name:
            known = replace(row, attempts=max(row.attempts, before.get("attempts", 0)))
            if row.phase != "Done":
                return known
            return replace(
                known,
                partitions=row.partitions or before.get("partitions", 0),
                bytes=row.bytes or before.get("bytes", 0),
            )
    return row


def _phase(job: Job, seen: Seen, answers: Sequence[Answer]) -> str:
    said = {answer.type: answer.status for answer in answers}
    if seen.ended:
        return "Succeeded" if seen.failure is None else "Failed"
    if said["Accepted"] != YES:
        return "Pending"
    if job.spec.suspend:
        return "Suspended"
    if said["Ready"] != YES:
        return "Waiting"
    return "Running" if job.spec.stages else "Ready"


def _answers(job: Job, seen: Seen) -> list[Answer]:
    found = [seen.accepted]
    if seen.accepted.status == YES:
        found.append(_ready(job, seen))
        found += _executors(job, seen)
    if not job.spec.stages and not seen.ended:
        return [*found, _durable(job, seen)]
    if seen.ended:
        reason = "Ended" if seen.over else "Ending"
        found.append(Answer("Running", NO, reason, seen.waits_for))
        failure, word = seen.failure, seen.reason or "Succeeded"
        found += (
            [Answer("Complete", YES, word), Answer("Failed", NO, word)]
            if failure is None
            else [Answer("Complete", NO, word), Answer("Failed", YES, word, failure[:4096])]
        )
    elif seen.accepted.status != YES:
        found.append(Answer("Running", NO, "NotAccepted"))
    elif job.spec.suspend:
        found.append(Answer("Running", NO, "Suspended", "spec.suspend is true"))
    elif seen.waits_for:
        found.append(Answer("Running", YES, "WaitsForWorkers", seen.waits_for[:1024]))
    else:
        found.append(Answer("Running", YES, "Running"))
    return [*found, _durable(job, seen)]


def _durable(job: Job, seen: Seen) -> Answer:
    unknown = Answer("DataDurable", UNKNOWN, "NotChecked", "no worker was asked yet")
    return seen.durable or _as_before(job, "DataDurable") or unknown


def _ready(job: Job, seen: Seen) -> Answer:
    if seen.ready is None:
        return _as_before(job, "Ready") or Answer("Ready", NO, "NotRegistered")
    if seen.ready:
        return Answer("Ready", NO, "NotRegistered", seen.ready[:1024])
    return Answer("Ready", YES, "Registered")


def _executors(job: Job, seen: Seen) -> list[Answer]:
    """Return what is said of an attached engine's executors."""
    if job.spec.executors is None:
        return []
    if seen.executors is not None:
        return [seen.executors.scaled, seen.executors.releasable]
    return [found for kind in (SCALED, RELEASABLE) if (found := _as_before(job, kind))]


def _as_before(job: Job, kind: str) -> Answer | None:
    """Return a condition as it was said last, if it was."""
    for condition in job.status.get("conditions", ()):
        if condition["type"] == kind:
            status, message = condition["status"], condition.get("message", "")
            return Answer(kind, status, condition["reason"], message)
    return None
