"""The machine's questions: who answers them, a thread or a pod first, and what came of it."""

import asyncio
from collections import deque
from collections.abc import Mapping
from functools import partial

from crossdock.jobfile.model import ShuffleJob
from crossdock.stages.events import Answer, Ask, Broken, OutputMissing, Record
from crossdock.stages.podfiles import Order
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
from crossdock_operator.jobs.staged import Staged
from crossdock_operator.jobs.tools import AGAIN_SECONDS, Tools
from crossdock_operator.kinds import SHUFFLE_JOB
from crossdock_operator.records import Item, Job


class Questions:
    """Of one job that is under way. Used by one reconcile at a time."""

    def __init__(
        self, tools: Tools, job: ShuffleJob, place: ClusterPlace, asking: Asking, staged: Staged
    ) -> None:
        self._tools = tools
        self._model = job
        self._place = place
        self._asking = asking
        self._staged = staged
        self._inbox: deque[Answer | Postponed] = deque()
        self._again: list[tuple[float, Ask, Order | None]] = []
        """What is asked again, and when."""
        self._due: list[tuple[Ask, Order | None]] = []
        """What is asked now, and what a pod did for it."""
        self._helpers: dict[str, Helper] = {}
        """By name, the Jobs that do something for a question."""
        self.orders: dict[str, tuple[str, ...]] = {}
        """By name of such a Job, the ConfigMaps with what it is to do."""
        self.waits_for = ""
        """Why the last question was not answered; empty: it was."""

    @property
    def helpers(self) -> dict[str, Batch]:
        """Jobs that shall be there, by name."""
        return {name: helper.batch for name, helper in self._helpers.items()}

    async def take_in(self, job: Job, jobs: Mapping[str, Batch], now: float) -> None:
        """Give the machine what was answered."""
        while self._inbox:
            answer = self._inbox.popleft()
            if isinstance(answer, Postponed):
                self.waits_for = answer.why
                self._again.append((now + AGAIN_SECONDS, answer.ask, answer.order))
                self._tools.wake(_item(job), AGAIN_SECONDS)
            else:
                self.waits_for = ""
                self._staged.events.append(answer)
        for name, helper in self._helpers.items():
            batch = jobs.get(name)
            if batch is not None and batch.over:
                found = await failures(self._tools.kube, job.key.namespace, name, batch)
                why = f"no pod could {helper.order.do} its files: {found.get(0, batch.over)}"
                self._staged.events.append(Broken(helper.ask.stage, why, helper.ask.ask))

    async def sort(self, job: Job, jobs: Mapping[str, Batch], now: float) -> None:
        """Find out what can be asked now, and what needs a pod before."""
        self._due += [(ask, order) for at, ask, order in self._again if at <= now]
        self._again = [each for each in self._again if each[0] > now]
        while self._staged.asks:
            await self._sort(job, self._staged.asks[0])
            del self._staged.asks[0]  # last: the API server may not have answered
        for name, helper in list(self._helpers.items()):
            done = name in jobs and bool(jobs[name].done)
            if done:
                self._due.append((helper.ask, helper.order))
            if done or not self._is_asked(helper.ask):
                del self._helpers[name]

    async def _sort(self, job: Job, ask: Ask) -> None:
        helper = None
        if isinstance(ask, Record) and needs_publishing(self._model, ask):
            helper = await self._publisher(job, ask)
        elif needs_listing(self._model, ask) and ask.stage not in self._place.listed:
            helper = lister(self._model, ask, uid=job.uid, root=self._place.root)
        else:
            self._due.append((ask, None))
        if helper is not None:
            self._helpers[self._staged.name(helper.batch)] = helper

    async def _publisher(self, job: Job, ask: Record) -> Helper | None:
        """Return who publishes what the winners' pods wrote; None: some of it cannot be found."""
        wrote: dict[int, int] = {}
        for name, indexes in self._staged.jobs_of(ask.winners, ask.stage).items():
            batch = self._staged.wanted[name]
            found = await writers(self._tools.kube, job.key.namespace, name, batch)
            wrote |= {index: found[index] for index in indexes & found.keys()}
        missing = sorted(ask.winners.keys() - wrote.keys())
        if missing:
            why = dict.fromkeys(missing, "its pod is gone, and nothing says what it wrote")
            self._inbox.append(OutputMissing(ask.stage, why, ask.ask))
            self._tools.wake(_item(job), 0.0)
            return None
        output = self._place.output(self._model.stage(ask.stage))
        return publisher(ask, uid=job.uid, output=output, wrote=wrote)

    async def keep_orders(self, job: Job, kept: Kept) -> None:
        """Keep what pods are to do, for them to mount."""
        for name, helper in self._helpers.items():
            if name not in self.orders:
                self.orders[name] = await kept.keep_file(job, packed(helper.order.encode()))

    def put(self, job: Job, jobs: Mapping[str, Batch]) -> None:
        """Have threads ask what is due."""
        due, self._due = self._due, []
        for ask, order in due:
            if not self._is_asked(ask):
                continue
            done, running = self._staged.under_way(ask.stage, jobs)
            self._place.finished[ask.stage] = done
            since = self._staged.machine.stages[ask.stage].since
            call = partial(self._asking.answer, ask, Known(since=since, running=running), order)
            self._tools.workers.ask(call, partial(self._answered, _item(job)))

    def _is_asked(self, ask: Ask) -> bool:
        return self._staged.machine.stages[ask.stage].ask == ask.ask

    def _answered(self, item: Item, future: "asyncio.Future[Answer | Postponed]") -> None:
        if not future.cancelled():
            self._inbox.append(future.result())
            self._tools.wake(item, 0.0)


def _item(job: Job) -> Item:
    return Item(SHUFFLE_JOB.name, job.key)
