"""Having workers persist a view, and publishing it: what `View.persist` does."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from crossdock.errors import CrossdockError, ProtocolError, Unavailable
from crossdock.retry import patiently
from crossdock.store import manifest
from crossdock.store.records import Record
from crossdock.threads import result_of
from crossdock.wire import tables

if TYPE_CHECKING:
    from crossdock.view import Share, View

_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Published:
    """Where a view lies in the store: all that `crossdock.open_view` needs."""

    store: str
    """URL, without credentials."""
    cluster: str
    job: str
    shuffle: str
    generation: int
    view: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a view its workers have persisted."""

    persisted_bytes: int
    total_bytes: int


def persist(view: "View", on_progress: Callable[[Progress], None] | None) -> Published:
    """Persist and publish a view; raises what `View.persist` says."""
    shuffle = view.shuffle
    cluster = shuffle.job.cluster
    report = _Report(int(view.bytes.sum()), on_progress)
    call = partial(_persist_share, view, report)
    threads = [cluster.fetchers.submit(view.ask, share, call) for share in view.shares]
    answers = [found for thread in threads for found in result_of(thread)]
    return _publish_records(view, [record for found in answers for record in found])


def try_persist(view: "View") -> Published | None:
    """Have workers go on with persisting a view; what `View.try_persist` says."""
    records: list[Record] = []
    pending = False
    for share in view.shares:
        if share.stored is not None:
            records.append(_stored_record(view, share))
            continue
        url = view.shuffle.job.cluster.url(share.worker)
        runs = _go_on(view, share, url).get("runs")
        if isinstance(runs, list):
            records += [_record(view, url, str(run)) for run in runs]
        else:
            pending = True
    return None if pending else _publish_records(view, records)


def _publish_records(view: "View", found: Sequence[Record]) -> Published:
    records = {record.run: record for record in found}
    statistics = np.empty(view.partitions, tables.STATISTICS)
    statistics["bytes"], statistics["rows"] = view.bytes, view.rows
    statistics["blocks"] = view.blocks
    made = manifest.assemble(view.shuffle.key, view.frames, statistics, list(records.values()))
    deadline = view.shuffle.job.cluster.options.deadline_seconds
    return patiently(partial(_publish, view, made.encode()), deadline_seconds=deadline)


def _publish(view: "View", data: bytes) -> Published:
    shuffle = view.shuffle
    cluster = shuffle.job.cluster
    target = f"{shuffle.path}/views/{view.id}/manifest?epoch={shuffle.job.epoch}"

    def send(url: str) -> object:
        with cluster.pool.call("PUT", url, target, body=data) as response:
            return response.read_json()

    def put(url: str) -> Published:
        answer = shuffle.job.ask(url, partial(send, url))
        if not isinstance(answer, dict):
            raise ProtocolError(f"{url} answered no JSON object")
        key = shuffle.key
        return Published(
            str(answer.get("store")), str(answer.get("cluster")),
            key.job, key.name, key.generation, view.id,
        )  # fmt: skip

    members = cluster.members(fresh=True)
    problem: CrossdockError = Unavailable("no worker that knows the job answers")
    for info in members.reachable.values():
        try:
            return put(info.url)
        except Unavailable as error:
            problem = error
    raise problem


def _persist_share(view: "View", report: "_Report", share: "Share") -> list[Record]:
    """Have a worker persist what it serves of a view; return the records of the runs."""
    shuffle = view.shuffle
    cluster = shuffle.job.cluster
    if share.stored is not None:
        return [_stored_record(view, share)]
    url = cluster.url(share.worker)
    heard = time.monotonic()
    done = -1
    while True:
        answer = _go_on(view, share, url)
        if "runs" in answer:
            break
        now = int(answer.get("persisted_bytes", 0))
        if now != done or answer.get("queued", 0):  # runs before it end, by the store's deadline
            heard, done = time.monotonic(), now
        elif time.monotonic() > heard + cluster.options.deadline_seconds:
            raise Unavailable(f"worker {share.worker} gets no further with persisting")
        report.tell(share.worker, now)
        if cluster.pool.cancel.event.wait(_POLL_SECONDS):
            cluster.pool.cancel.check()
    report.tell(share.worker, int(share.statistics["bytes"].sum()))
    return [_record(view, url, str(run)) for run in answer["runs"]]


def _stored_record(view: "View", share: "Share") -> Record:
    """Return the record of a share that the store serves."""
    shuffle = view.shuffle
    record = shuffle.job.cluster.tier.record(shuffle.key, share.worker)
    if record.is_log:
        raise Unavailable(
            f"frames of {len(share.keys)} pushes lie only in a log object of worker "
            f"{record.worker}, which that worker packs when it is there again"
        )
    return record


def _go_on(view: "View", share: "Share", url: str) -> dict[str, Any]:
    """Ask a worker to persist what it serves of a view, or how far it is."""
    shuffle = view.shuffle
    target = f"{shuffle.path}/persist?epoch={shuffle.job.epoch}"
    body = tables.encode(share.keys)

    def call() -> object:
        with shuffle.job.cluster.pool.call("POST", url, target, body=body) as response:
            return response.read_json()

    answer = shuffle.job.ask(url, call)
    if not isinstance(answer, dict):
        raise ProtocolError(f"{url} answered no JSON object")
    return answer


def _record(view: "View", url: str, run: str) -> Record:
    target = f"{view.shuffle.path}/runs/{run}"
    with view.shuffle.job.cluster.pool.call("GET", url, target) as response:
        return Record.decode(response.read(), where=f"{url}{target}")


class _Report:
    """Adds up what several workers have done. Thread-safe."""

    def __init__(self, total: int, on_progress: Callable[[Progress], None] | None) -> None:
        self._total = total
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}

    def tell(self, worker: str, persisted_bytes: int) -> None:
        """Note how far a worker is."""
        if self._on_progress is None:
            return
        with self._lock:
            self._done[worker] = persisted_bytes
            self._on_progress(Progress(min(self._total, sum(self._done.values())), self._total))
