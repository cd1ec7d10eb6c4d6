"""Jobs are taken, or not: all that is asked before one begins. Once it is taken it stays so."""

import time
from dataclasses import dataclass
from typing import Final

from crossdock.errors import ConfigError
from crossdock_operator.ending.jobs import JobEnds
from crossdock_operator.errors import NotAllowed
from crossdock_operator.jobs.acceptance import judge, needs_labels, spec_of
from crossdock_operator.jobs.keeping import Kept
from crossdock_operator.jobs.owners import Owners
from crossdock_operator.jobs.rehearsing import rehearse
from crossdock_operator.jobs.state import State, document_of
from crossdock_operator.jobs.telling import Teller
from crossdock_operator.jobs.tools import Tools
from crossdock_operator.kinds import NAMESPACE, SHUFFLE_JOB
from crossdock_operator.plan.conditions import NO, YES, Answer
from crossdock_operator.plan.job_status import is_true
from crossdock_operator.plan.owners import Verdict
from crossdock_operator.records import Cluster, Item, Job
from crossdock_operator.scaling.executors import ExecutorScaler

NOT_READY_SECONDS: Final = 10.0
"""After so long a job is looked at again whose cluster is not ready for it."""


@dataclass(frozen=True, slots=True)
class Accepting:
    """What decides, and what a decision takes."""

    tools: Tools
    ends: JobEnds
    scaler: ExecutorScaler
    owners: Owners

    async def accepted(self, job: Job, cluster: Cluster | None, owner: Verdict) -> Answer:
        """Return whether a job is taken; take it, if nothing is against it."""
        if is_true(job.status, "Accepted"):
            return _still_accepted(job, owner)
        answer = await self._judged(job, cluster, owner)
        if answer.status != YES or cluster is None:
            return answer
        try:
            job = await self.ends.hold(job, cluster)
        except ConfigError as error:
            self._look_again(job)
            return Answer("Accepted", NO, "StoreNotReady", str(error))
        if job.spec.stages:  # what lies inside pod templates can be changed later
            try:
                await Kept.pin(self.tools.kube, job, fresh(job, time.time()))
            except NotAllowed as error:
                return self._not_allowed(job, error)
        await Teller(self.tools.kube).tell(job, "Accepted", "the job is accepted")
        return answer

    async def _judged(self, job: Job, cluster: Cluster | None, owner: Verdict) -> Answer:
        labels: dict[str, str] = {}
        if needs_labels(job, cluster):
            found = await self.tools.kube.get(NAMESPACE, "", job.key.namespace)
            labels = ((found or {}).get("metadata") or {}).get("labels") or {}
        answer = judge(job, cluster, labels)
        if answer.status == YES:
            answer = self._with_owner(job, owner)
        if answer.status == YES and job.spec.stages and cluster is not None:
            try:
                problem = await rehearse(self.tools.kube, job, cluster)
            except NotAllowed as error:
                return self._not_allowed(job, error)
            if problem:
                answer = Answer("Accepted", NO, "InvalidPodTemplate", problem)
        if answer.status == YES and job.spec.executors is not None:
            refusal = await self.scaler.refusal(job, job.spec.executors)
            if refusal is not None:
                answer = refusal
                self._look_again(job)
        return answer

    def _with_owner(self, job: Job, owner: Verdict) -> Answer:
        """Return whether the job's owner is one that can be.

        No task runs for an owner that is not there. An engine needs the connection to begin.
        """
        if owner.end is not None:
            return Answer("Accepted", NO, owner.end.reason, owner.end.message)
        refusal = self.owners.refusal(job)
        if refusal:
            return Answer("Accepted", NO, "OwnerKindNotAllowed", refusal)
        if owner.waits and job.spec.stages:
            return Answer("Accepted", NO, "OwnerNotFound", owner.waits)
        return _still_accepted(job, owner)

    def _not_allowed(self, job: Job, error: NotAllowed) -> Answer:
        """Return that a job waits: for a right, a quota's room, or what a policy asks for."""
        self._look_again(job)
        return Answer("Accepted", NO, "NotAllowed", error.message[:1024])

    def _look_again(self, job: Job) -> None:
        """Have a job looked at again that cannot begin: soon, if it is new."""
        patience = min(NOT_READY_SECONDS, max(1.0, time.time() - job.created))
        self.tools.wake(Item(SHUFFLE_JOB.name, job.key), patience)


def fresh(job: Job, now: float) -> State:
    """Return the state of a job that begins; should one be lost, attempts do not come again."""
    return State(
        document=document_of(job.key.name, spec_of(job)),
        epoch=max(0, int(now - job.created)),
        since=None if job.spec.suspend else now,
    )


def _still_accepted(job: Job, owner: Verdict) -> Answer:
    """Return that the job is taken, as it was said; and where its owner is not seen, so."""
    if owner.waits:
        return Answer("Accepted", YES, "WaitsForOwner", owner.waits)
    for said in job.status.get("conditions", ()):
        if said["type"] == "Accepted" and said["reason"] == "RunsAsAccepted":
            return Answer("Accepted", YES, said["reason"], said.get("message", ""))
    return Answer("Accepted", YES, "Accepted")
