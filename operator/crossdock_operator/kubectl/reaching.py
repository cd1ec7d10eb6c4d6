"""Commands that ask the operator: who uses most, and its page."""

import asyncio
import json
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass

import typer

from crossdock.errors import ConfigError, CrossdockError
from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB
from crossdock_operator.kubectl.access import Person, Target, opened
from crossdock_operator.kubectl.bearer import Bearer
from crossdock_operator.kubectl.fill import WorkerFill, fills
from crossdock_operator.kubectl.front import Front
from crossdock_operator.kubectl.rows import JobRow, job_row
from crossdock_operator.kubectl.tunnel import operators_session


@dataclass(frozen=True, slots=True, kw_only=True)
class ToOperator:
    """How the operator is reached."""

    namespace: str
    """Empty: look for it."""
    labels: str
    account: str = ""
    """NAMESPACE/NAME of a service account to ask as; empty: as oneself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """Who uses most."""

    namespace: str
    jobs: Sequence[JobRow]
    """Those with most bytes first."""
    workers: Sequence[WorkerFill]
    problem: str
    """Why nothing is known of workers; empty: it is."""


async def top(target: Target, way: ToOperator) -> Top:
    """Look at jobs by what they use, and at workers."""
    async with opened(target) as person:
        rows = [job_row(body) for body in await person.listed(SHUFFLE_JOB)]
        rows.sort(key=lambda row: (-row.worker_bytes - row.store_bytes, row.namespace, row.name))
        problem = ""
        workers: list[WorkerFill] = []
        try:
            workers = await _fills(person, way)
        except CrossdockError as error:
            problem = str(error)
    return Top(namespace=person.namespace, jobs=rows, workers=workers, problem=problem)


async def _fills(person: Person, way: ToOperator) -> list[WorkerFill]:
    clusters = [body["metadata"] for body in await person.listed(SHUFFLE_CLUSTER)]
    found: list[WorkerFill] = []
    if not clusters:
        return found
    bearer = Bearer(person, way.account)
    async with operators_session(person, way.namespace, way.labels) as session:
        headers = {"Authorization": f"Bearer {await bearer.token()}"}
        for each in clusters:
            path = f"/ui/api/clusters/{each['namespace']}/{each['name']}/workers"
            async with session.get(path, headers=headers) as answer:
                text = await answer.text()
            said = json.loads(text) if text.startswith("{") else {"message": text}
            if answer.status >= 300:
                raise ConfigError(
                    f"the operator answers {answer.status}: {said.get('message', '')}",
                    hint=str(said.get("hint", "")) or "is it started with --no-ui?",
                )
            found += fills(each["namespace"], each["name"], said)
    return found


async def ui(target: Target, way: ToOperator, *, port: int, browser: bool) -> None:
    """Serve the page on this machine until the command is interrupted."""
    async with opened(target) as person:
        bearer = Bearer(person, way.account)
        await bearer.token()  # before anything is opened
        async with operators_session(person, way.namespace, way.labels) as session:
            front = Front(session, bearer)
            async with front.serving(port) as url:
                typer.echo(url)
                if browser and not await asyncio.to_thread(webbrowser.open, url):
                    typer.echo("no browser was found: open the URL yourself", err=True)
                await asyncio.Event().wait()
