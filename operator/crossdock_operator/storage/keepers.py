"""The storekeepers of an operator: started when there is work, ended when there is none."""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog

from crossdock_operator.storage.access import Access
from crossdock_operator.storage.tasks import (
    Audit,
    Audited,
    Ended,
    EndJob,
    Place,
    Probe,
    Probed,
    Task,
    TaskFailed,
    to_wire,
)

IDLE_SECONDS: Final = 15.0
"""After so long without work a storekeeper ends."""
_LINE_BYTES: Final = 2**24
_CLOUDS: Final = ("AWS_", "GOOGLE_", "AZURE_")
_DIED: Final = "the process that works on the store ended"

Note = Callable[[TaskFailed], None]

log = structlog.get_logger()


class Keepers:
    """All of them, by what they may open. Of the event loop alone; close it."""

    def __init__(self, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._running: dict[str, _Keeper] = {}

    async def end_job(self, access: Access, place: Place, task: EndJob, note: Note) -> Ended:
        """Delete a job; `note` is told what is waited for. Raises `TaskFailed`."""
        return Ended(**_tuples(await self._do(access, place, task, note), "silent"))

    async def probe(self, access: Access, place: Place, task: Probe) -> Probed:
        """Find out what the credentials may do; raises `TaskFailed`."""
        return Probed(**_tuples(await self._do(access, place, task), "lifecycle"))

    async def audit(self, access: Access, place: Place, task: Audit) -> Audited:
        """Compare store and disks with the jobs that live; raises `TaskFailed`."""
        return Audited(**_tuples(await self._do(access, place, task), "silent"))

    async def _do(
        self, access: Access, place: Place, task: Task, note: Note | None = None
    ) -> dict[str, Any]:
        key = access.digest
        keeper = self._running.get(key)
        if keeper is None or keeper.ended:
            keeper = self._running[key] = _Keeper(access.credentials)
        try:
            return await keeper.do(place, task, note)
        finally:
            if keeper.idle:
                loop = asyncio.get_running_loop()
                loop.call_later(self._idle_seconds, self._end_if_idle, key, keeper, keeper.tasks)

    def _end_if_idle(self, key: str, keeper: "_Keeper", tasks: int) -> None:
        if keeper.idle and keeper.tasks == tasks:
            keeper.end()
            if self._running.get(key) is keeper:
                del self._running[key]

    async def close(self) -> None:
        """End all; what was under way fails."""
        running, self._running = self._running, {}
        for keeper in running.values():
            keeper.end()
        await asyncio.gather(*(keeper.ended_wholly() for keeper in running.values()))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Who asked for something."""

    result: asyncio.Future[dict[str, Any]]
    note: Note | None


class _Keeper:
    """One process."""

    def __init__(self, credentials: Mapping[str, str] | None) -> None:
        """Args: `credentials` are of a cluster's Secret; None: the operator's own are used."""
        self._credentials = credentials
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._started = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self.tasks = 0
        """That it was ever given."""
        self.ended = False

    @property
    def idle(self) -> bool:
        return not self._waiting

    async def do(self, place: Place, task: Task, note: Note | None) -> dict[str, Any]:
        self.tasks += 1
        number = next(self._numbers)
        result = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Waiting(result, note)
        try:
            stdin = await self._stdin()
            stdin.write((json.dumps(to_wire(number, place, task)) + "\n").encode())
            await stdin.drain()
            answer: dict[str, Any] = await result
        except (OSError, ConnectionError) as error:
            raise TaskFailed(f"{_DIED}: {error}") from error
        finally:
            self._waiting.pop(number, None)
        return answer

    async def _stdin(self) -> asyncio.StreamWriter:
        async with self._started:
            if self._process is None:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "crossdock_operator.storage.storekeeper"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env=environment(own=self._credentials is None),
                    limit=_LINE_BYTES,
                )
                assert self._process.stdin is not None
                # Not in its environment, which shows in every dump of the pod.
                first = json.dumps(dict(self._credentials or {}))
                self._process.stdin.write(f"{first}\n".encode())
                if self.ended:  # while it was started
                    self._process.kill()
                self._reader = asyncio.create_task(self._read(self._process))
        assert self._process.stdin is not None
        return self._process.stdin

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                self._answered(json.loads(line))
        except asyncio.CancelledError:  # kopf does that to all tasks when it ends, and waits
            self.end()
            raise
        finally:
            self.ended = True
            code = await process.wait()
            if self._waiting:
                log.warning("a storekeeper ended", code=code, tasks=len(self._waiting))
            for waiting in self._waiting.values():
                if not waiting.result.done():
                    waiting.result.set_exception(TaskFailed(f"{_DIED} with {code}"))

    def _answered(self, answer: dict[str, Any]) -> None:
        waiting = self._waiting.get(answer["id"])
        if waiting is None or waiting.result.done():
            return
        if "note" in answer:
            if waiting.note is not None:
                waiting.note(_failed(answer["note"]))
        elif "error" in answer:
            waiting.result.set_exception(_failed(answer["error"]))
        else:
            waiting.result.set_result(answer["result"])

    def end(self) -> None:
        already, self.ended = self.ended, True
        if self._process is not None and not already:
            with suppress(ProcessLookupError):
                self._process.kill()  # it keeps nothing, and its requests are the store's now

    async def ended_wholly(self) -> None:
        if self._reader is not None:
            await asyncio.wait([self._reader])


def environment(*, own: bool) -> dict[str, str]:
    """Return what a storekeeper's environment is when it starts.

    Args:
        own: it may use the operator's own account at the cloud; else nothing of that is in it.
    """
    if own:
        return dict(os.environ)
    # Or what the Secret lacks would be looked for at the machine's own account.
    alone = {"AWS_EC2_METADATA_DISABLED": "true"}
    return {k: v for k, v in os.environ.items() if not k.startswith(_CLOUDS)} | alone


def _failed(error: Mapping[str, str]) -> TaskFailed:
    return TaskFailed(error["message"], hint=error["hint"], reason=error["code"])


def _tuples(result: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    return {**result, **{name: tuple(result[name]) for name in fields}}
