"""One staged job under way: brings its Jobs to what the machine wants, and tells it what they did.

`advance` is the whole of it, and looks at everything: what Jobs there are, what workers answered,
what time it is. It may end at any line, and be called again, here or in another operator.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from crossdock.errors import ConfigError, CrossdockError, JobFenced
from crossdock.job import Job as Handle
from crossdock.jobfile.advice import unread
from crossdock.jobfile.model import ShuffleJob, ShuffleOutput
from crossdock.stages.actions import StageFacts
from crossdock.stages.events import Answer, Ask, Broken, OutputMissing, Record, Stop
from crossdock.stages.podfiles import Order
from crossdock.stages.states import Phase
from crossdock_operator.errors import Refused, Stale
from crossdock_operator.jobs.acceptance import model_of
from crossdock_operator.jobs.asking import Asking, Known, Postponed
from crossdock_operator.jobs.batch import Batch
from crossdock_operator.jobs.helping import (
    Helper,
    lister,
    needs_listing,
    needs_publishing,
    publisher,
)
from crossdock_operator.jobs.keeping import Kept
from crossdock_operator.jobs.place import ClusterPlace, packed
from crossdock_operator.jobs.pods import failures, writers
from crossdock_operator.jobs.render import stage_job
from crossdock_operator.jobs.staged import Staged
from crossdock_operator.jobs.state import Ended, State
from crossdock_operator.jobs.telling import WARNING, Teller
from crossdock_operator.jobs.usage import Usage, usage_of
from crossdock_operator.jobs.workers import Workers
from crossdock_operator.kinds import JOB, SHUFFLE_JOB
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.plan.names import JOB_LABEL
from crossdock_operator.records import Cluster, Item, Job
from crossdock_operator.store import Store

AGAIN_SECONDS: Final = 5.0
"""After so long workers are asked again that did not answer."""
USAGE_SECONDS: Final = 10.0
MOST_SINGLE_JOBS: Final = 100
"""Jobs of one task each that there are at once for one ShuffleJob."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What runs of jobs share."""

    kube: Kube
    store: Store
    workers: Workers
    wake: Callable[[Item, float], None]
    """Has a job looked at, at the latest after so many seconds."""


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
        self._teller = Teller(tools.kube)
        self._inbox: deque[Answer | Postponed] = deque()
        self._again: list[tuple[float, Ask, Order | None]] = []
        self._due: list[tuple[Ask, Order | None]] = []
        self._helpers: dict[str, Helper] = {}
        """By name, the Jobs that do something for a question."""
        self._orders: dict[str, tuple[str, ...]] = {}
        """By name of such a Job, the ConfigMaps with what it is to do."""
        self._asked_usage = 0.0
        self._stopped = ""
        self._releasing = False
        self._released = False
        self._deleted: set[str] = set()
        self._phases: dict[str, Phase] = {}
        self._repairs: dict[str, int] = {}
        self.usage = Usage()
        self.waits_for = ""
        """What the job cannot go on without; empty: nothing."""

    @property
    def state(self) -> State:
        """What is kept of the job."""
        return self._kept.state

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

    async def advance(
        self, job: Job, cluster: Cluster, *, keep_on_failure: bool, now: float
    ) -> None:
        """Do what is to be done now.

        Args:
            job: as it is now.
            cluster: that serves it.
            keep_on_failure: whether the shuffles stay if the job fails.
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
            await self._want_helpers(job, now)
            state = await self._next_state(job, state, now)
        await self._kept.save(state)
        await self._tell_stages(job)
        await self._sync(job, cluster)
        if state.ended is None:
            self._ask(now)
        elif not state.released and not self._releasing:
            self._release(keep=ended_badly(state) and keep_on_failure)

    # -- what has happened -----------------------------------------------------------------

    async def _take_in(self, job: Job, state: State, now: float) -> None:
        while self._inbox:
            answer = self._inbox.popleft()
            if isinstance(answer, Postponed):
                self.waits_for = answer.why
                self._again.append((now + AGAIN_SECONDS, answer.ask, answer.order))
                self._tools.wake(self._item, AGAIN_SECONDS)
            else:
                self.waits_for = ""
                self.staged.events.append(answer)
        jobs = self._jobs()
        told: dict[str, dict[int, str]] = {}
        for name, task in self.staged.look(jobs):
            batch = jobs.get(name)
            if name not in told:
                told[name] = (
                    {}
                    if batch is None
                    else await failures(self._tools.kube, job.key.namespace, name, batch)
                )
            lost = f"its Job {name} is gone" if batch is None else batch.over or "it failed"
            why = told[name].get(task.index, lost)
            self.staged.failed(task, why)
            said = f"task {task.index} of stage {task.stage} failed: {why}"
            await self._teller.tell(job, "TaskFailed", said, kind=WARNING)
        limit = self._model.active_deadline_seconds
        if limit is not None and state.since is not None:
            left = limit - state.run_seconds(now)
            if left <= 0:
                self.stop("DeadlineExceeded", f"not done within {limit:g} s")
            else:
                self._tools.wake(self._item, left)
        for name, helper in self._helpers.items():
            batch = jobs.get(name)
            if batch is not None and batch.over:
                found = await failures(self._tools.kube, job.key.namespace, name, batch)
                why = f"files are not {helper.order.do}ed: {found.get(0, batch.over)}"
                self.staged.events.append(Broken(helper.ask.stage, why, helper.ask.ask))
        self.staged.step()

    async def _want_helpers(self, job: Job, now: float) -> None:
        """Sort out what can be asked now, and what needs a pod before."""
        self._due += [(ask, order) for at, ask, order in self._again if at <= now]
        self._again = [each for each in self._again if each[0] > now]
        stages = self.staged.machine.stages
        while self.staged.asks:
            ask = self.staged.asks[0]
            if isinstance(ask, Record) and needs_publishing(self._model, ask):
                self._help(await self._publisher(job, ask))
            elif needs_listing(self._model, ask) and ask.stage not in self._place.listed:
                self._help(lister(self._model, ask, uid=job.uid, root=self._place.root))
            else:
                self._due.append((ask, None))
            del self.staged.asks[0]  # last: the API server may not have answered
        jobs = self._jobs()
        for name, helper in list(self._helpers.items()):
            if name in jobs and jobs[name].done:
                self._due.append((helper.ask, helper.order))
            asked = stages[helper.ask.stage].ask == helper.ask.ask
            if not asked or (name in jobs and jobs[name].done):
                del self._helpers[name]

    def _help(self, helper: Helper | None) -> None:
        if helper is not None:
            self._helpers[self.staged.name(helper.batch)] = helper

    async def _publisher(self, job: Job, ask: Record) -> Helper | None:
        """Return who publishes what the winners' pods wrote; None: some of it cannot be found."""
        wrote: dict[int, int] = {}
        for name, indexes in self.staged.jobs_of(ask.winners, ask.stage).items():
            batch = self.staged.wanted[name]
            found = await writers(self._tools.kube, job.key.namespace, name, batch)
            wrote |= {index: found[index] for index in indexes & found.keys()}
        missing = sorted(ask.winners.keys() - wrote.keys())
        if missing:
            why = dict.fromkeys(missing, "its pod is gone, and nothing says what it wrote")
            self._inbox.append(OutputMissing(ask.stage, why, ask.ask))
            self._tools.wake(self._item, 0.0)
            return None
        output = self._place.output(self._model.stage(ask.stage))
        return publisher(ask, uid=job.uid, output=output, wrote=wrote)

    def stop(self, reason: str, message: str) -> None:
        """End the job. Args: `reason` in one word, `message` for people."""
        if self.state.ended is None:
            self._stopped = self._stopped or reason
            self.staged.events.append(Stop(message))

    async def _next_state(self, job: Job, state: State, now: float) -> State:
        """Return what is to be kept of what was taken in."""
        files = dict(state.files)
        for name, helper in self._helpers.items():
            if name not in self._orders:
                order = packed(helper.order.encode())
                self._orders[name] = await self._kept.keep_file(job, order)
        for stage in self._model.stages:
            found = self._place.kept(stage.name)
            if found is not None:
                files[stage.name] = await self._kept.keep_file(job, found)
        ended = None
        if self.staged.finish is not None:
            ended = _ended(self.staged.finish.failure, self._stopped or "TaskFailed", now)
        state = replace(state, checkpoint=self.staged.checkpoint(), files=files, ended=ended)
        try:
            state.encode()
        except ConfigError as error:  # the job is too large: it ends as it was kept last
            return replace(self.state, ended=_ended(str(error), "TooManyTasks", now))
        return state

    # -- what is to be done ----------------------------------------------------------------

    def _jobs(self) -> dict[str, Batch]:
        children = self._tools.store.children(self._item)
        return {
            key.name: child.batch
            for key, child in children.items()
            if key.kind == JOB.name and child.batch is not None
        }

    async def _sync(self, job: Job, cluster: Cluster) -> None:
        """Make the Jobs that are wanted, and none else."""
        helpers = {name: helper.batch for name, helper in self._helpers.items()}
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
            files = self._orders[name] if name in helpers else self.state.files[batch.stage]
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

    def _ask(self, now: float) -> None:
        due, self._due = self._due, []
        for ask, order in due:
            state = self.staged.machine.stages[ask.stage]
            if state.ask != ask.ask:
                continue  # it is no longer asked
            done, running = self.staged.under_way(ask.stage, self._jobs())
            self._place.finished[ask.stage] = done
            known = Known(since=state.since, running=running)
            self._tools.workers.ask(partial(self._asking.answer, ask, known, order), self._answered)
        if now - self._asked_usage > USAGE_SECONDS:
            self._asked_usage = now
            self._tools.workers.ask(partial(usage_of, self._handle), self._learnt_usage)
            self._tools.wake(self._item, USAGE_SECONDS + 1)

    def _answered(self, future: "asyncio.Future[Answer | Postponed]") -> None:
        if not future.cancelled():
            self._inbox.append(future.result())
            self._tools.wake(self._item, 0.0)

    def _learnt_usage(self, future: "asyncio.Future[Usage]") -> None:
        if not future.cancelled() and not isinstance(future.exception(), CrossdockError):
            self.usage = future.result()
            self._tools.wake(self._item, 0.0)

    # -- the end ---------------------------------------------------------------------------

    def _release(self, *, keep: bool) -> None:
        """Have the workers drop what nobody reads any more."""
        if keep:
            self._released = True
            self._tools.wake(self._item, 0.0)
            return
        self._releasing = True
        call = partial(release, self._model, self._handle, all_=ended_badly(self.state))
        self._tools.workers.ask(call, self._is_released)

    def _is_released(self, future: "asyncio.Future[None]") -> None:
        self._releasing = False
        if future.cancelled():
            return
        error = future.exception()
        self._released = error is None
        self.waits_for = "" if error is None else str(error)
        self._tools.wake(self._item, 0.0 if error is None else AGAIN_SECONDS)

    # -- telling ---------------------------------------------------------------------------

    async def _tell_stages(self, job: Job) -> None:
        for name, stage in self.staged.machine.stages.items():
            if stage.repairs > self._repairs.get(name, 0):
                lost = sum(task.winner is None for task in stage.tasks)
                said = f"output of stage {name} was lost: {lost} of its tasks run again"
                await self._teller.tell(job, "OutputLost", said, kind=WARNING)
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


def release(job: ShuffleJob, handle: Handle, *, all_: bool) -> None:
    """Drop the shuffles of a job that has ended.

    Args:
        job: its stages.
        handle: the job at its workers.
        all_: also those that no stage reads: they are the result of a job that succeeded.

    Raises:
        Unavailable: some worker does not answer; call again.
    """
    results = set() if all_ else set(unread(job))
    for stage in job.stages:
        if isinstance(stage.output, ShuffleOutput) and stage.name not in results:
            with suppress(JobFenced):
                handle.shuffle(stage.name, partitions=stage.output.partitions).release()


def _ended(failure: str | None, reason: str, now: float) -> Ended:
    return Ended(failure=failure, reason="Succeeded" if failure is None else reason, at=now)
