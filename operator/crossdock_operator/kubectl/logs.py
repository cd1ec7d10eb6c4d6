"""Logs of a job's tasks, from their pods: those of the newest tries first, or as they come."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from crossdock.errors import ConfigError
from crossdock.stagefile import ENV_JOB_INDEX
from crossdock_operator.errors import KubeError, Vanished
from crossdock_operator.jobs.batch import STAGE
from crossdock_operator.jobs.pods import INDEX
from crossdock_operator.kinds import POD, SHUFFLE_JOB, Object
from crossdock_operator.kubectl.access import Person, closing_lines, explained
from crossdock_operator.plan.names import JOB_LABEL

LOOK_SECONDS: Final = 2.0
"""Between two looks whether the job is over."""
_OVER: Final = frozenset({"Succeeded", "Failed", "Deleting"})
_ENDED: Final = frozenset({"Succeeded", "Failed"})

Print = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be shown."""

    job: str
    stage: str = ""
    """Empty: of all stages."""
    tail: int = 100
    """Last lines of each pod; less than 0: all."""
    pods: int = 10
    """At most so many, the newest."""


def newest_first(pods: list[Object]) -> list[Object]:
    """Return pods in the order in which a person wants to see them."""
    return sorted(
        pods,
        key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]),
        reverse=True,
    )


def headline(pod: Object) -> str:
    """Return which task a pod is of, and how it is."""
    metadata = pod["metadata"]
    stage = metadata["labels"].get(STAGE, "")
    phase = (pod.get("status") or {}).get("phase", "Unknown")
    return f"==> {metadata['name']} (stage {stage}, task {_task(pod)}, {phase})"


def _task(pod: Object) -> str:
    """Return the task's number: a Job of one task says it, of others Kubernetes counts."""
    for variable in pod["spec"]["containers"][0].get("env") or ():
        if variable["name"] == ENV_JOB_INDEX and "value" in variable:
            return str(variable["value"])
    return str((pod["metadata"].get("annotations") or {}).get(INDEX, "?"))


async def show(person: Person, wanted: Wanted, out: Print) -> None:
    """Print what pods that are there have written.

    Raises:
        ConfigError: there is no such job, or none of its pods is there.
    """
    pods = await _pods(person, wanted)
    if not pods:
        body = await person.get(SHUFFLE_JOB, wanted.job)
        raise ConfigError(_nothing(body, wanted))
    for pod in pods[: wanted.pods]:
        out(headline(pod))
        async for line in _lines(person, pod, wanted, follow=False):
            out(line)
    if len(pods) > wanted.pods:
        out(f"{len(pods) - wanted.pods} older pods are not shown; --pods shows more")


@dataclass(slots=True)
class Follower:
    """Prints what pods write until the job is over, each line with its pod's name."""

    person: Person
    wanted: Wanted
    out: Print
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """By the pod's uid."""

    async def run(self) -> None:
        """Follow.

        Raises:
            ConfigError: there is no such job.
            KubeError: the API server does not answer, or refuses.
        """
        await self.person.get(SHUFFLE_JOB, self.wanted.job)
        try:
            async with asyncio.TaskGroup() as group:
                coming = group.create_task(self._begin_with_those_that_come(group))
                while not await self._is_over():  # noqa: ASYNC110 -- the API server knows it
                    await asyncio.sleep(LOOK_SECONDS)
                coming.cancel()
                self._begin(group, await _pods(self.person, self.wanted))
        except* KubeError as found:
            raise found.exceptions[0] from None

    async def _begin_with_those_that_come(self, group: asyncio.TaskGroup) -> None:
        """Begin with each pod at once: it may be there for a second only."""
        labels, home = _labels(self.wanted), self.person.home
        with explained("list and watch", POD, home):
            async with aclosing(self.person.streams.watch(POD, home, labels=labels)) as watch:
                async for pods in watch:
                    self._begin(group, newest_first(pods))

    def _begin(self, group: asyncio.TaskGroup, pods: list[Object]) -> None:
        """Begin with pods of which there are logs: what is open ends with its pod."""
        for pod in reversed(pods):
            uid = pod["metadata"]["uid"]
            if uid not in self._tasks and _has_begun(pod):
                self._tasks[uid] = group.create_task(self._one(pod))

    async def _is_over(self) -> bool:
        with explained("get", SHUFFLE_JOB, self.person.home):
            job = await self.person.kube.get(SHUFFLE_JOB, self.person.home, self.wanted.job)
        return job is None or (job.get("status") or {}).get("phase") in _OVER

    async def _one(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        try:
            async for line in _lines(self.person, pod, self.wanted, follow=True):
                self.out(f"{name} | {line}")
        except Vanished:  # pods of a stage go when it is recorded
            self.out(f"{name} | (the pod is gone)")


def _has_begun(pod: Object) -> bool:
    """Whether it can be asked for logs: before, its node answers with an error."""
    status = pod.get("status") or {}
    return status.get("phase") in {"Running", *_ENDED}


async def _pods(person: Person, wanted: Wanted) -> list[Object]:
    return newest_first(await person.listed(POD, labels=_labels(wanted), home=True))


def _labels(wanted: Wanted) -> str:
    return f"{JOB_LABEL}={wanted.job}" + (f",{STAGE}={wanted.stage}" if wanted.stage else "")


async def _lines(
    person: Person, pod: Object, wanted: Wanted, *, follow: bool
) -> AsyncGenerator[str, None]:
    path = POD.path(person.home, pod["metadata"]["name"], "log")
    query = {"container": pod["spec"]["containers"][0]["name"]}
    if wanted.tail >= 0:
        query["tailLines"] = str(wanted.tail)
    if follow:
        query["follow"] = "true"
    with explained("get", POD, person.home, "log"):
        async with aclosing(closing_lines(person.streams.lines(path, query))) as lines:
            async for line in lines:
                yield line


def _nothing(job: Object, wanted: Wanted) -> str:
    stages = {each["name"]: each for each in (job.get("status") or {}).get("stages") or ()}
    if wanted.stage and wanted.stage not in stages:
        known = ", ".join(stages) or "none yet"
        return f"job {wanted.job} has no stage {wanted.stage!r}; its stages: {known}"
    what = f"stage {wanted.stage}" if wanted.stage else "the job"
    return (
        f"no pod of {what} is there: none has begun, or they went when the stage was recorded; "
        "a log collector has what they wrote"
    )
