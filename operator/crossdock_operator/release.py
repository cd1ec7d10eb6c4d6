"""`crossdock release`: what the chart's hooks do, since Helm cannot.

Helm knows a resource's kind only when its CRD is there, so the first ShuffleCluster comes after the
release (`apply`). It deletes the operator without a look at what only the operator can end, so that
is looked at before (`leave`), and likewise before an operator looks after less (`narrow`).
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from crossdock.errors import CrossdockError
from crossdock_operator.errors import ApiUnavailable, Expired, NotAllowed, Vanished
from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB, Kind, Object
from crossdock_operator.kube import Kube
from crossdock_operator.plan.names import FINALIZER
from crossdock_operator.trial import trial_job

app = typer.Typer(
    name="release", help="Steps of the Helm chart: apply, try, narrow, leave.", no_args_is_help=True
)
_MANAGER: Final = "crossdock-chart"
_PAUSE_SECONDS: Final = 2.0
"""Between two looks at something that is waited for."""
_LEAVE_HINT: Final = (
    "delete these and uninstall again; `helm uninstall --no-hooks` leaves them as they are; "
    "`helm rollback RELEASE REVISION`, of the newest in `helm history RELEASE`, keeps the release"
)
"""Helm takes a release whose uninstall was refused for one that is no more: no values reach it."""
_GONE_HINT: Final = (
    "compare the roles of the hooks' account; if that namespace is gone, take it out of "
    "operator.watchNamespaces, or uninstall with --no-hooks"
)
_NARROW_HINT: Final = (
    "delete these first, or look after their namespaces on; with uninstall.whenInUse: Leave they "
    "stay as they are"
)

Namespace = Annotated[str, typer.Option(help="Of the release.")]
Kubeconfig = Annotated[
    Path | None, typer.Option(envvar="KUBECONFIG", help="Default: the pod's credentials.")
]
Seconds = Annotated[float, typer.Option(help="For how long to wait.")]


class WhenInUse(StrEnum):
    """What to do about an uninstall while something is still needed."""

    REFUSE = "Refuse"
    WAIT = "Wait"
    LEAVE = "Leave"


class StillInUse(CrossdockError):
    """The release is needed by something that would be stranded without it."""

    code = "release_in_use"


class TookTooLong(CrossdockError):
    """What was waited for did not come."""

    code = "release_time_out"


@app.command()
def apply(
    cluster: Annotated[str, typer.Option(help="The ShuffleCluster, as JSON.")],
    timeout_seconds: Seconds = 120,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make a ShuffleCluster be as the chart's values say."""
    body: Object = json.loads(cluster)

    async def work(kube: Kube) -> None:
        async def applied() -> str:
            try:
                await kube.apply(SHUFFLE_CLUSTER, body, manager=_MANAGER)
            except (Vanished, NotAllowed) as error:
                return str(error)  # CRDs are served, and roles known, some time after they are made
            return ""

        await _Patience(timeout_seconds).until(applied, "the ShuffleCluster was not taken")

    asyncio.run(_connected(work, kubeconfig))
    typer.echo(f"applied ShuffleCluster {body['metadata']['name']}")


@app.command(name="try")
def try_(  # noqa: PLR0917 -- typer makes an option of each
    namespace: Namespace,
    image: Annotated[str, typer.Option(help="Of the tasks.")],
    cluster: Annotated[str, typer.Option(help="A ShuffleCluster; empty: none.")] = "",
    pull_secret: Annotated[
        list[str] | None, typer.Option(help="A Secret for the image's registry; repeatable.")
    ] = None,
    timeout_seconds: Seconds = 240,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Run a small job whose tasks check what they read, delete it, and see it gone."""

    async def work(kube: Kube) -> None:
        if not cluster:
            async for _ in kube.every(SHUFFLE_CLUSTER, namespace, page=1):
                break
            typer.echo("there is no default cluster to try; the API server knows our resources")
            return
        patience = _Patience(timeout_seconds)
        job = await kube.create(
            SHUFFLE_JOB, trial_job(namespace, cluster, image, pull_secret or ())
        )
        name, uid = str(job["metadata"]["name"]), str(job["metadata"]["uid"])
        try:
            await patience.until(lambda: _success(kube, namespace, name), f"ShuffleJob {name}")
        finally:
            await kube.delete(SHUFFLE_JOB, namespace, name, uid=uid)
        await patience.until(
            lambda: _gone(kube, SHUFFLE_JOB, namespace, name), f"ShuffleJob {name}"
        )
        typer.echo(f"ShuffleJob {name} succeeded, and nothing of it is left")

    asyncio.run(_connected(work, kubeconfig))


@app.command()
def leave(  # noqa: PLR0917 -- typer makes an option of each
    namespace: Namespace,
    when_in_use: Annotated[WhenInUse, typer.Option(help="Refuse, Wait or Leave.")],
    cluster: Annotated[str, typer.Option(help="The chart's ShuffleCluster; empty: none.")] = "",
    watch: Annotated[list[str] | None, typer.Option(help="As of the operator.")] = None,
    timeout_seconds: Seconds = 240,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let the operator go only when nothing needs it; the chart's ShuffleCluster goes before."""
    if when_in_use is WhenInUse.LEAVE:
        typer.echo("left as it is: jobs and clusters end when an operator is there again")
        return

    async def work(kube: Kube) -> None:
        patience = _Patience(timeout_seconds)

        async def jobs_and_others() -> str:
            found = await _users(kube, watch or ("",))
            return _told(
                [each for each in found if each != f"ShuffleCluster {namespace}/{cluster}"]
            )

        await _see_unused(jobs_and_others, when_in_use, patience, _LEAVE_HINT)
        if cluster and await kube.delete(SHUFFLE_CLUSTER, namespace, cluster):
            await patience.until(
                lambda: _gone(kube, SHUFFLE_CLUSTER, namespace, cluster),
                f"ShuffleCluster {cluster}",
            )

    asyncio.run(_connected(work, kubeconfig))
    typer.echo("nothing needs the operator")


@app.command()
def narrow(
    when_in_use: Annotated[WhenInUse, typer.Option(help="Refuse, Wait or Leave.")],
    before: Annotated[list[str] | None, typer.Option(help="Namespaces so far; none: all.")] = None,
    after: Annotated[list[str] | None, typer.Option(help="Namespaces from now on.")] = None,
    timeout_seconds: Seconds = 240,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let the operator look after less only when nothing that it leaves out needs it."""
    if when_in_use is WhenInUse.LEAVE:
        typer.echo("left as it is: what is left out ends when an operator looks after it again")
        return

    async def work(kube: Kube) -> None:
        async def left_out() -> str:
            return _told(await _users(kube, before or ("",), but=after or ()))

        await _see_unused(left_out, when_in_use, _Patience(timeout_seconds), _NARROW_HINT)

    asyncio.run(_connected(work, kubeconfig))
    typer.echo("nothing that is left out needs the operator")


async def _see_unused(
    look: Callable[[], Awaitable[str]], when: WhenInUse, patience: "_Patience", hint: str
) -> None:
    if when is WhenInUse.WAIT:
        await patience.until(look, "the release is in use", hint)
    elif told := await patience.answer(look):
        raise StillInUse(f"the release is in use: {told}", hint=hint)


async def _connected(work: Callable[[Kube], Awaitable[None]], kubeconfig: Path | None) -> None:
    async with await Kube.connect(kubeconfig) as kube:
        await work(kube)


class _Patience:
    """All waits of a hook together, since Kubernetes ends its pod after one time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    async def answer(self, look: Callable[[], Awaitable[str]]) -> str:
        """Return what one look finds; an API server that does not answer is asked again.

        Raises:
            TookTooLong: it did not.
        """
        while True:
            try:
                return await look()
            except (ApiUnavailable, Expired) as error:
                if time.monotonic() > self._deadline:
                    raise TookTooLong(str(error)) from error
            await asyncio.sleep(_PAUSE_SECONDS)

    async def until(self, look: Callable[[], Awaitable[str]], what: str, hint: str = "") -> None:
        """Look again and again until nothing stands in the way any more.

        Raises:
            TookTooLong: the last look still found something.
        """
        told = ""
        while why := await _seen(look):
            if time.monotonic() > self._deadline:
                waited = f"it was waited for {self._seconds:g} s"
                raise TookTooLong(f"{what}: {why}", hint=f"{waited}; {hint}" if hint else waited)
            if why != told:
                typer.echo(f"waiting: {why}")
            told = why
            await asyncio.sleep(_PAUSE_SECONDS)


async def _seen(look: Callable[[], Awaitable[str]]) -> str:
    try:
        return await look()
    except (ApiUnavailable, Expired) as error:
        return str(error)


async def _users(
    kube: Kube, namespaces: Collection[str], *, but: Collection[str] = ()
) -> list[str]:
    """Return what only an operator can end: it may have bytes in a store."""
    found: list[str] = []
    for kind in (SHUFFLE_JOB, SHUFFLE_CLUSTER):
        for namespace in namespaces:
            try:
                found += [
                    f"{kind.name} {each['metadata']['namespace']}/{each['metadata']['name']}"
                    async for each in kube.every(kind, namespace)
                    if FINALIZER in each["metadata"].get("finalizers", ())
                    and each["metadata"]["namespace"] not in but
                ]
            except Vanished:  # without its CRD there is none of a kind
                continue
            except NotAllowed as error:
                where = f"in namespace {namespace}" if namespace else "here"
                raise StillInUse(f"who needs the operator {where} is not known: {error}",
                                 hint=_GONE_HINT) from error  # fmt: skip
    return found


def _told(users: list[str]) -> str:
    first = ", ".join(users[:10])
    return f"{first}, and {len(users) - 10} more" if len(users) > 10 else first


async def _success(kube: Kube, namespace: str, name: str) -> str:
    job = await kube.get(SHUFFLE_JOB, namespace, name)
    if job is None:
        raise StillInUse("somebody deleted the job", hint="try again")
    status = job.get("status", {})
    if status.get("phase") == "Failed":
        raise TookTooLong(f"ShuffleJob {name} failed: {_reasons(status)}")
    done = status.get("phase") == "Succeeded"
    return "" if done else f"it is {status.get('phase', 'new')}; {_reasons(status)}"


async def _gone(kube: Kube, kind: Kind, namespace: str, name: str) -> str:
    found = await kube.get(kind, namespace, name)
    return f"it is not gone yet; {_reasons(found.get('status', {}))}" if found else ""


def _reasons(status: Object) -> str:
    conditions = status.get("conditions", ())
    told = (
        "{type}={status} {reason} {message}".format_map({"message": "", **c}) for c in conditions
    )
    return "; ".join(each.strip() for each in told)
