"""Questions of the machine, put to the workers by a thread."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace

from crossdock.errors import CrossdockError, Forbidden, Unauthenticated, Unavailable
from crossdock.job import Job as Handle
from crossdock.jobfile.model import FilesOutput, ShuffleJob, Stage
from crossdock.stages.actions import Actions
from crossdock.stages.events import (
    Answer,
    Ask,
    Broken,
    CheckInputs,
    Observe,
    Observed,
    OutputMissing,
    Plan,
    Record,
    Recorded,
)
from crossdock.stages.podfiles import LIST, Order, listing, told
from crossdock_operator.jobs.place import ClusterPlace


@dataclass(frozen=True, slots=True)
class Postponed:
    """Somebody does not answer, or one side does not trust the other: ask again later."""

    ask: Ask
    order: Order | None
    why: str


@dataclass(frozen=True, slots=True)
class Known:
    """What the event loop's side knows that a question is about."""

    since: int
    """The first attempt of the stage's plan."""
    running: Mapping[int, int]
    """Index → attempt of the stage's tasks that go on."""


class Asking:
    """Answers questions about one job. Thread-safe."""

    def __init__(self, job: ShuffleJob, handle: Handle, place: ClusterPlace) -> None:
        self._job = job
        self._handle = handle
        self._place = place
        self.actions = Actions(job, handle=handle, place=place)

    def answer(self, ask: Ask, known: Known, order: Order | None = None) -> Answer | Postponed:
        """Return the answer; never raises. Args: `order` was carried out by a pod for it."""
        stage = self._job.stage(ask.stage)
        try:
            if order is not None:
                self._learn(order)
            return replace(self._answer(ask, stage, known), ask=ask.ask)
        except Unavailable as error:
            return Postponed(ask, order, str(error))
        except (CrossdockError, OSError) as error:
            if _is_distrust(error):
                return Postponed(ask, order, str(error))
            return Broken(ask.stage, str(error), ask.ask)
        except Exception as error:  # noqa: BLE001 -- or nobody would hear of it, and all would wait
            return Broken(ask.stage, f"a fault of crossdock: {error!r}", ask.ask)

    def _learn(self, order: Order) -> None:
        found = told(self._handle, order)
        if order.do == LIST:
            self._place.listed[order.stage] = listing(found)
        else:
            assert isinstance(found, int)
            self._place.published[order.stage] = found

    def _answer(self, ask: Ask, stage: Stage, known: Known) -> Answer:
        match ask:
            case Plan():
                self._handle.say()
                return self.actions.plan(stage)
            case CheckInputs():
                self._handle.say()  # a worker that lost its disk knows the job no more
                return self.actions.check_inputs(stage)
            case Observe():
                answer = self.actions.observe(stage, since=ask.since)
                assert isinstance(answer, Observed)
                return replace(answer, running=known.running)
            case Record():
                return self._record(stage, ask.winners, known)

    def _record(self, stage: Stage, winners: Mapping[int, int], known: Known) -> Answer:
        """Record what was written: which of a task's pods wrote it the workers know."""
        if isinstance(stage.output, FilesOutput):
            return self.actions.record(stage, winners)
        shuffle = self._handle.shuffle(stage.name, partitions=stage.output.partitions)
        complete = shuffle.complete_attempts(since=known.since)
        missing = winners.keys() - complete.keys()
        if missing:
            why = "it ended well, and its output is not there"
            return OutputMissing(stage.name, dict.fromkeys(sorted(missing), why))
        chosen = {index: complete[index] for index in winners}
        answer = self.actions.record(stage, chosen)
        return replace(answer, winners=chosen) if isinstance(answer, Recorded) else answer


def _is_distrust(error: Exception) -> bool:
    """Whether a token or certificate is refused: keys and authorities are renewed, jobs go on."""
    refused = isinstance(error.__cause__, ssl.SSLCertVerificationError)
    return refused or isinstance(error, Unauthenticated | Forbidden)
