"""One staged job under way: brings its Jobs to what the machine wants, and tells it what they did.

`advance` is the whole of it, and looks at everything: what Jobs there are, what workers answered,
what time it is. It may end at any line, and be called again, here or in another operator.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from crossdock.errors import ConfigError
from crossdock.job import Job as Handle
from crossdock.stages.actions import StageFacts
from crossdock.stages.events import Stop
from crossdock.stages.releasing import Releasing
from crossdock.stages.states import Phase
from crossdock_operator.errors import Refused, Stale
from crossdock_operator.jobs.acceptance import model_of
from crossdock_operator.jobs.asking import Asking
from crossdock_operator.jobs.batch import Batch
from crossdock_operator.jobs.closing import release
from crossdock_operator.jobs.consuming import Consuming
from crossdock_operator.jobs.keeping import Kept
from crossdock_operator.jobs.place import ClusterPlace
from crossdock_operator.jobs.pods import failures
from crossdock_operator.jobs.questions import Questions
from crossdock_operator.jobs.render import stage_job
from crossdock_operator.jobs.staged import Staged
from crossdock_operator.jobs.state import Ended, State
from crossdock_operator.jobs.telling import Teller
from crossdock_operator.jobs.tools import AGAIN_SECONDS, Tools
from crossdock_operator.jobs.usage import usage_of
from crossdock_operator.kinds import JOB, SHUFFLE_JOB
from crossdock_operator.plan import names
from crossdock_operator.plan.lifetimes import Lifetimes
from crossdock_operator.plan.names import JOB_LABEL
from crossdock_operator.plan.usage import Usage
from crossdock_operator.records import Cluster, Item, Job

USAGE_SECONDS: Final = 10.0
MOST_SINGLE_JOBS: Final = 100
"""Jobs of one task each that there are at once for one ShuffleJob."""


class Running:
    """One job that this operator has taken up. Used by one reconcile at a time."""

    def __init__(self, tools: Tools, job: Job, kept: Kept, handle: Handle) -> None:
        """Use `take_up`."""
        self._tools = tools
        self._item = Item(SHUFFLE_JOB.name, job.key)
        self._kept = kept
        self._model = model_of(kept.state.document)
        self._place = ClusterPlace(job.uid, self._model.data_root)
        self._asking = Asking(self._model, handle, self._place)
        self._handle = handle
        self.staged = Staged(
            self._model, job.uid, epoch=kept.state.epoch, checkpoint=kept.state.checkpoint
        )
        self._questions = Questions(tools, self._model, self._place, self._asking, self.staged)
        self._teller = Teller(tools.kube)
        self._consuming = Consuming(
            tools,
            self._item,
            self._model,
            self._asking.actions,
            handle,
            Releasing(self.staged.machine.stages),
        )
        self._uid = job.uid
        self._asked_usage = 0.0
        self._stopped = ""
        self._releasing = False
        self._released = False
        self._problem = ""
        self._deleted: set[str] = set()
        self._phases: dict[str, Phase] = {}
        self._repairs: dict[str, int] = {}
        self.usage: Usage | None = None

    @property
    def state(self) -> State:
        """What is kept of the job."""
        return self._kept.state

    @property
    def waits_for(self) -> str:
        """What the job cannot go on without just now; empty: nothing."""
        return self._problem or self._questions.waits_for

    def facts(self, stage: str) -> StageFacts:
        """Return sizes of a stage."""
        return self._asking.actions.facts[stage]

    @classmethod
    async def take_up(cls, tools: Tools, job: Job, kept: Kept, handle: Handle) -> "Running":
        """Begin a job, or go on with one that another operator has begun.

        Raises:
            KubeError: its objects cannot be read now.
        """
        found = cls(tools, job, kept, handle)
        await kept.restore(job, found._place)
        for name, stage in kept.state.checkpoint.stages.items():
            if stage.winners is not None:
                found._asking.actions.restore(name, stage.winners)
        labels = f"{JOB_LABEL}={job.key.name}"
        async for body in tools.kube.every(JOB, job.key.namespace, labels=labels):
            tools.store.saw_child(JOB.name, body)
        if kept.state.ended is None:
            found.staged.begin(found._jobs())
        return found

    def close(self) -> None:
        """Let go of the job; another operator, or a later look, goes on with it."""
        self._handle.close()

    async def advance(self, job: Job, cluster: Cluster, limits: Lifetimes, *, now: float) -> None:
        """Do what is to be done now.

        Args:
            job: as it is now.
            cluster: that serves it.
            limits: how long its shuffles stay.
            now: seconds since 1970.

        Raises:
            Stale: another operator has taken the job up.
            KubeError: not all was done; call again.
        """
        state = self.state.paused(now, suspend=job.spec.suspend)
        if self._released:
            state = replace(state, released=True)
        if state.ended is None:
            await self._take_in(job, state, now)
            await self._questions.sort(job, self._jobs(), now)
            state = await self._next_state(job, state, now)
        await self._save(state, now)
        await self._tell_stages(job)
        await self._sync(job, cluster)
        if self.state.ended is None:
            self._questions.put(job, self._jobs())
            self._ask_usage(now)
            if limits.release_consumed:
                await self._consuming.advance(job, self._teller, now)
        elif not self.state.released and not self._releasing:
            self._release(keep=ended_badly(self.state) and limits.keep_on_failure)

    def stop(self, reason: str, message: str) -> None:
        """End the job. Args: `reason` in one word, `message` for people."""
        if self.state.ended is None:
            self._stopped = self._stopped or reason
            self.staged.events.append(Stop(message))

    # -- what has happened -----------------------------------------------------------------

    async def _take_in(self, job: Job, state: State, now: float) -> None:
        jobs = self._jobs()
        await self._questions.take_in(job, jobs, now)
        await self._take_in_failures(job, jobs)
        limit = job.spec.active_deadline_seconds
        if limit is not None and state.since is not None:
            left = limit - state.run_seconds(now)
            if left <= 0:
                self.stop("DeadlineExceeded", f"not done within {limit:g} s")
            else:
                self._tools.wake(self._item, left)
        self.staged.step()

    async def _take_in_failures(self, job: Job, jobs: Mapping[str, Batch]) -> None:
        told: dict[str, dict[int, str]] = {}
        for name, task in self.staged.look(jobs):
            if name not in told:
                kube, namespace = self._tools.kube, job.key.namespace
                told[name] = await failures(kube, namespace, name, jobs[name])
            why = told[name].get(task.index, jobs[name].over or "it failed")
            self.staged.failed(task, why)
            said = f"task {task.index} of stage {task.stage} failed: {why}"
            await self._teller.tell(job, "TaskFailed", said, warning=True)

    async def _next_state(self, job: Job, state: State, now: float) -> State:
        """Return what is to be kept of what was taken in."""
        await self._questions.keep_orders(job, self._kept)
        files = dict(state.files)
        for stage in self._model.stages:
            found = self._place.kept(stage.name)
            if found is not None:
                files[stage.name] = await self._kept.keep_file(job, found)
        ended = None
        if self.staged.finish is not None:
            ended = _ended(self.staged.finish.failure, self._stopped or "TaskFailed", now)
        return replace(state, checkpoint=self.staged.checkpoint(), files=files, ended=ended)

    async def _save(self, state: State, now: float) -> None:
        try:
            await self._kept.save(state)
        except ConfigError as error:  # it is too large: the job ends as it was kept last
            ended = _ended(str(error), "TooManyTasks", now)
            await self._kept.save(replace(self.state, ended=ended))

    # -- what is to be done ----------------------------------------------------------------

    def _jobs(self) -> dict[str, Batch]:
        children = self._tools.store.children(self._item, self._uid)
        return {
            key.name: child.batch
            for key, child in children.items()
            if key.kind == JOB.name and child.batch is not None
        }

    async def _sync(self, job: Job, cluster: Cluster) -> None:
        """Make the Jobs that are wanted, and none else."""
        helpers = self._questions.helpers
        wanted = {**self.staged.wanted, **helpers}
        failed = ended_badly(self.state)
        suspend = job.spec.suspend or failed
        await self._sync_made(job, wanted, suspend=suspend)
        if not failed:  # else its pods stay, to be looked at, until the ShuffleJob goes
            await self._delete(job, wanted)
        if self.state.ended is not None:
            return
        jobs = self._jobs()
        room = MOST_SINGLE_JOBS - sum(b.index is not None for b in jobs.values())
        for name, batch in wanted.items():
            if name in jobs or (batch.index is not None and room <= 0):
                continue
            room -= batch.index is not None
            orders = self._questions.orders
            files = orders[name] if name in helpers else self.state.files[batch.stage]
            await self._make(job, cluster, batch, files=files, suspend=suspend)

    async def _sync_made(self, job: Job, wanted: Mapping[str, Batch], *, suspend: bool) -> None:
        for name, batch in self._jobs().items():
            if batch.suspended != suspend and (suspend or name in wanted):
                step = {"op": "add", "path": "/spec/suspend", "value": suspend}
                body = await self._tools.kube.patch(JOB, job.key.namespace, name, [step])
                self._tools.store.saw_child(JOB.name, body)

    async def _delete(self, job: Job, wanted: Mapping[str, Batch]) -> None:
        for name in self._jobs().keys() - wanted.keys() - self._deleted:
            await self._tools.kube.delete(JOB, job.key.namespace, name)
            self._deleted.add(name)

    async def _make(
        self, job: Job, cluster: Cluster, batch: Batch, *, files: Sequence[str], suspend: bool
    ) -> None:
        body = stage_job(
            job,
            batch,
            self._model.stage(batch.stage).pod_template,
            endpoint=names.endpoint(cluster),
            tls=names.scheme(cluster) == "https",
            files=files,
            suspend=suspend,
        )
        try:
            made = await self._tools.kube.create(JOB, body)
        except Stale:
            found = await self._tools.kube.get(JOB, job.key.namespace, body["metadata"]["name"])
            if found is None:
                raise
            made = found
        except Refused as error:
            self.stop("Refused", f"the Job of stage {batch.stage} is refused: {error.message}")
            self._tools.wake(self._item, 0.0)
            return
        self._tools.store.saw_child(JOB.name, made)

    # -- what is asked besides -------------------------------------------------------------

    def _ask_usage(self, now: float) -> None:
        left = self._asked_usage + USAGE_SECONDS - now
        if left <= 0:
            self._asked_usage, left = now, USAGE_SECONDS
            self._tools.workers.ask(partial(usage_of, self._handle), self._learnt_usage)
        # At each look: of several times at which a job is to be looked at, the first one counts.
        self._tools.wake(self._item, left)

    def _learnt_usage(self, future: "asyncio.Future[Usage]") -> None:
        if not future.cancelled() and future.exception() is None:
            self.usage = future.result()
            self._tools.wake(self._item, 0.0)

    def _release(self, *, keep: bool) -> None:
        """Have the workers drop what nobody reads any more."""
        if keep:
            self._released = True
            self._tools.wake(self._item, 0.0)
            return
        self._releasing = True
        call = partial(release, self._model, self._handle, results=ended_badly(self.state))
        self._tools.workers.ask(call, self._is_released)

    def _is_released(self, future: "asyncio.Future[None]") -> None:
        self._releasing = False
        if future.cancelled():
            return
        error = future.exception()
        self._released = error is None
        self._problem = "" if error is None else str(error)
        self._tools.wake(self._item, 0.0 if error is None else AGAIN_SECONDS)

    # -- telling ---------------------------------------------------------------------------

    async def _tell_stages(self, job: Job) -> None:
        for name, stage in self.staged.machine.stages.items():
            if stage.repairs > self._repairs.get(name, 0):
                lost = sum(task.winner is None for task in stage.tasks)
                said = f"output of stage {name} was lost: {lost} of its tasks run again"
                await self._teller.tell(job, "OutputLost", said, warning=True)
            self._repairs[name] = stage.repairs
            if stage.phase is self._phases.get(name):
                continue
            self._phases[name] = stage.phase
            if stage.phase is Phase.RUNNING:
                said = f"stage {name} runs: {len(stage.tasks)} tasks"
                await self._teller.tell(job, "StageRuns", said)
            elif stage.phase is Phase.DONE:
                await self._teller.tell(job, "StageDone", f"stage {name} is done")


def ended_badly(state: State) -> bool:
    """Return whether the job has failed."""
    return state.ended is not None and state.ended.failure is not None


def _ended(failure: str | None, reason: str, now: float) -> Ended:
    return Ended(failure=failure, reason="Succeeded" if failure is None else reason, at=now)
