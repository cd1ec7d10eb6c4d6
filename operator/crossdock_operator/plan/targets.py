"""Whether a job may scale what it names, and what its status says of that."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from crossdock.errors import ConfigError
from crossdock_operator.api.common import GROUP
from crossdock_operator.api.job import ScaleTarget
from crossdock_operator.kinds import DEPLOYMENT, STATEFUL_SET, Kind, Object
from crossdock_operator.plan.conditions import NO, UNKNOWN, YES, Answer
from crossdock_operator.plan.contest import CONTEST_SECONDS
from crossdock_operator.plan.scaling import Leaving, Step
from crossdock_operator.records import Job

SCALABLE_BY: Final = f"{GROUP}/scalable-by"
"""Annotation of what may be scaled: the name of the ShuffleJob that may."""
DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
SCALABLE: Final = (DEPLOYMENT, STATEFUL_SET)
"""Kinds of targets that are allowed where the operator's option names none."""
ENDED: Final = "Ended"
"""Reason of the condition `ExecutorsScaled` when nothing is done for the target any more."""
SCALED: Final = "ExecutorsScaled"
RELEASABLE: Final = "ExecutorsReleasable"


def kind_of_option(text: str) -> Kind:
    """Return the kind that an option names: GROUP/VERSION/KIND, or with =PLURAL.

    Raises:
        ConfigError: it names none.
    """
    name, _, plural = text.partition("=")
    parts = name.split("/")
    if not all(parts) or len(parts) != 3:
        raise ConfigError(
            f"--scalable {text!r} is not GROUP/VERSION/KIND",
            hint="such as apps/v1/Deployment; with =PLURAL where that is not the kind and an s",
        )
    group, version, kind = parts
    found = Kind(name=kind, plural=plural or f"{kind.lower()}s", group=group, version=version)
    return next((known for known in SCALABLE if known == found), found)


def leaving(kind: Kind, body: Object) -> Leaving:
    """Return which pods go when an object of the kind is scaled down."""
    if kind == DEPLOYMENT and _rolls_out(body):
        return Leaving.UNKNOWN
    return {DEPLOYMENT: Leaving.CHEAPEST, STATEFUL_SET: Leaving.LAST}.get(kind, Leaving.UNKNOWN)


def _rolls_out(deployment: Object) -> bool:
    """Whether a Deployment may have pods of several specs.

    Each spec's pods are then counted down for themselves, and the cost of deleting a pod counts
    only among its like.
    """
    status = deployment.get("status") or {}
    known = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return not known or status.get("updatedReplicas", 0) != status.get("replicas", 0)


def kind_of(target: ScaleTarget, kinds: Sequence[Kind]) -> Kind | None:
    """Return the kind of a target if it is allowed."""
    wanted = target.api_version, target.kind
    return next((kind for kind in kinds if (kind.api_version, kind.name) == wanted), None)


def not_allowed(target: ScaleTarget, kinds: Sequence[Kind]) -> Answer:
    """Return what is said of a kind that is not allowed."""
    allowed = ", ".join(f"{kind.api_version} {kind.name}" for kind in kinds)
    message = (
        f"{target.api_version} {target.kind} is none of the kinds that this operator may scale: "
        f"{allowed}; see its option --scalable"
    )
    return Answer(SCALED, NO, "KindNotAllowed", message)


def problem_of(
    job: Job, target: ScaleTarget, kind: Kind, body: Object | None, autoscalers: Iterable[Object]
) -> Answer | None:
    """Return why a target is not scaled, and what to do; None: it is.

    Args:
        job: that wants it.
        target: that it names.
        kind: of the target.
        body: the target, if it is there.
        autoscalers: HorizontalPodAutoscalers of the job's namespace.
    """
    namespace, name = job.key
    where = f"{kind.name} {target.name}"
    if body is None:
        message = f"there is no {where} in namespace {namespace}"
        return Answer(SCALED, NO, "TargetNotFound", message)
    if (body["metadata"].get("annotations") or {}).get(SCALABLE_BY) != name:
        message = (
            f"{where} does not say that this job may scale it; add to its metadata.annotations: "
            f'"{SCALABLE_BY}: {name}", or run: kubectl annotate -n {namespace} '
            f"{kind.plural}/{target.name} {SCALABLE_BY}={name}"
        )
        return Answer(SCALED, NO, "NotAnnotated", message)
    for each in autoscalers:
        scaled = each["spec"]["scaleTargetRef"]
        group = scaled.get("apiVersion", "").rpartition("/")[0]
        if (group, scaled["kind"], scaled["name"]) == (kind.group, kind.name, target.name):
            message = (
                f"HorizontalPodAutoscaler {each['metadata']['name']} scales {where}, so this "
                f"operator does not; delete it, or leave executors out of the job"
            )
            return Answer(SCALED, NO, "AnotherAutoscaler", message)
    return None


def manager_of_replicas(body: Object, scale: str = "scale") -> str:
    """Return who set `spec.replicas` of an object last, as its managedFields say; or ""."""
    for entry in body["metadata"].get("managedFields") or ():
        fields = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        if "f:replicas" in fields:
            by = " by its scale subresource" if entry.get("subresource") == scale else ""
            return f"{entry.get('manager', '')}{by}"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorsSeen:
    """How a job's executors are."""

    scaled: Answer
    releasable: Answer
    numbers: Mapping[str, int] | None
    """current, desired and releasable; None: as they were said last."""


def unscaled(problem: Answer) -> ExecutorsSeen:
    """Return what is seen of executors that are not scaled."""
    unknown = Answer(RELEASABLE, UNKNOWN, "NotScaled", "see the condition ExecutorsScaled")
    return ExecutorsSeen(scaled=problem, releasable=unknown, numbers=None)


def ended() -> ExecutorsSeen:
    """Return what is seen of executors of a job that has ended."""
    message = "the target was set to executors.idle at most, and is not touched any more"
    nothing = Answer(RELEASABLE, YES, ENDED, "the job needs nothing of them")
    return ExecutorsSeen(
        scaled=Answer(SCALED, NO, ENDED, message), releasable=nothing, numbers=None
    )


def seen(found: Step, *, current: int, said: bool, suspended: bool, whole: bool) -> ExecutorsSeen:
    """Return what is seen of executors after a step.

    Args:
        found: the step.
        current: pods there are.
        said: whether the engine said anything.
        suspended: whether the job is.
        whole: whether every worker was asked.
    """
    numbers = {"current": current, "desired": found.desired, "releasable": found.releasable}
    if found.contested:
        minutes = CONTEST_SECONDS / 60
        message = (
            "somebody else sets the target's replicas again and again: this operator leaves them "
            f"alone for {minutes:g} minutes after such a change; let one of the two do it"
        )
        scaled = Answer(SCALED, NO, "Contested", message)
    elif suspended:
        scaled = Answer(SCALED, YES, "Suspended", "spec.suspend is true")
    elif not said:
        message = "no worker has a word of the engine that holds: replicas stay as they are"
        scaled = Answer(SCALED, UNKNOWN, "NothingReported", message)
    elif not whole:
        message = "some worker does not answer, and may have a newer word: nothing goes down"
        scaled = Answer(SCALED, YES, "WorkersAway", message)
    else:
        scaled = Answer(SCALED, YES, "AsReported")
    return ExecutorsSeen(
        scaled=scaled, releasable=_releasable(found, current, said=said), numbers=numbers
    )


def _releasable(found: Step, current: int, *, said: bool) -> Answer:
    if not current:
        return Answer(RELEASABLE, YES, "NoExecutors")
    if not said:
        message = "the engine does not say which executors have data that is not acked"
        return Answer(RELEASABLE, UNKNOWN, "NothingReported", message)
    if found.releasable >= current:
        return Answer(RELEASABLE, YES, "AllAcked", "no executor has data that only it has")
    message = "some executors run tasks, or have data that is not acked yet"
    return Answer(RELEASABLE, NO, "Busy", message)
