"""Commands that have something done: an audit, a drain."""

import asyncio
import datetime as dt
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import typer

from crossdock.errors import ConfigError, Unavailable
from crossdock_operator.api.common import PAUSED
from crossdock_operator.kinds import POD, SHUFFLE_CLUSTER, Object
from crossdock_operator.kubectl.access import Person, Target, explained, opened
from crossdock_operator.kubectl.looking import wrong_with
from crossdock_operator.kubectl.rows import ClusterRow, cluster_row
from crossdock_operator.plan import names
from crossdock_operator.plan.advice import Finding

WORKER: Final = "crossdock-worker"
_APP: Final = "app.kubernetes.io/name"
LOOK_SECONDS: Final = 2.0
"""Between two looks at a pod that is to go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audits:
    """What the operator's newest audits said."""

    namespace: str
    clusters: Sequence[ClusterRow]
    findings: Sequence[Finding]
    """Of the condition StorageClean alone."""


async def audits(target: Target, *, name: str, now: bool, timeout_seconds: float) -> Audits:
    """Look at the newest audits, of one cluster or all; with `now` have new ones made first.

    Raises:
        ConfigError: there is no such cluster, or one is paused.
        Unavailable: no audit has ended in time.
    """
    async with opened(target) as person:
        bodies = await _clusters(person, name)
        if now:
            for body in bodies:
                await _ask_for_audit(person, body)
            try:
                async with asyncio.timeout(timeout_seconds):
                    bodies = await _audited(person, bodies)
            except TimeoutError as error:
                raise Unavailable(
                    f"no audit of all of them has ended within {timeout_seconds:g} s",
                    hint="kubectl crossdock status says what is wrong; is an operator there?",
                ) from error
    found = [each for body in bodies for each in wrong_with(SHUFFLE_CLUSTER, body)]
    return Audits(
        namespace=person.namespace,
        clusters=[cluster_row(body) for body in bodies],
        findings=[each for each in found if each.condition == "StorageClean"],
    )


async def _clusters(person: Person, name: str) -> list[Object]:
    if name:
        return [await person.get(SHUFFLE_CLUSTER, name)]
    found = await person.listed(SHUFFLE_CLUSTER)
    return sorted(found, key=lambda body: (body["metadata"]["namespace"], body["metadata"]["name"]))


async def _ask_for_audit(person: Person, body: Object) -> None:
    metadata = body["metadata"]
    paused = body["spec"].get("paused") or (metadata.get("annotations") or {}).get(PAUSED) == "true"
    if paused:
        raise ConfigError(
            f"ShuffleCluster {metadata['name']} is paused: nothing of it is audited",
            hint=f"take spec.paused or the annotation {PAUSED} away",
        )
    asked = {names.AUDIT_ASKED_AT: dt.datetime.now(dt.UTC).isoformat()}
    with explained("patch", SHUFFLE_CLUSTER, metadata["namespace"]):
        await person.kube.merge(
            SHUFFLE_CLUSTER, metadata["namespace"], metadata["name"],
            {"metadata": {"annotations": asked}},
        )  # fmt: skip


async def _audited(person: Person, before: Sequence[Object]) -> list[Object]:
    """Return the clusters when each has been audited once more."""
    ended = {body["metadata"]["uid"]: cluster_row(body).audited for body in before}
    with explained("list and watch", SHUFFLE_CLUSTER, person.namespace):
        async with aclosing(person.streams.watch(SHUFFLE_CLUSTER, person.namespace)) as states:
            async for bodies in states:
                known = {body["metadata"]["uid"]: body for body in bodies}
                found = [known[uid] for uid in ended if uid in known]
                if all(cluster_row(b).audited != ended[b["metadata"]["uid"]] for b in found):
                    return found
    raise AssertionError("a watch goes on for ever")


async def drain(target: Target, pod: str, *, wait: bool, timeout_seconds: float) -> None:
    """Evict a worker: it hands over what it holds alone, and its pod goes.

    Raises:
        ConfigError: there is no such pod, or it is no worker.
        Unavailable: it is not allowed now, or not done in time.
    """
    async with opened(target) as person:
        body = await person.get(POD, pod)
        if (body["metadata"].get("labels") or {}).get(_APP) != WORKER:
            raise ConfigError(
                f"pod {pod} is no worker of Crossdock", hint=f"kubectl get pods -l {_APP}={WORKER}"
            )
        uid = str(body["metadata"]["uid"])
        try:
            async with asyncio.timeout(timeout_seconds):
                await _evict(person, pod, uid, wait=wait)
                typer.echo(f"{pod} drains: what it holds alone goes to other workers or the store")
                while wait and await _is_there(person, pod, uid):  # noqa: ASYNC110 -- asked anew
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError as error:
            raise Unavailable(
                f"pod {pod} is still there after {timeout_seconds:g} s",
                hint="it goes on draining; its log says how far it is",
            ) from error
        if wait:
            typer.echo(f"{pod} is gone, and its StatefulSet makes it anew")


async def _evict(person: Person, pod: str, uid: str, *, wait: bool) -> None:
    told = False
    while await _is_there(person, pod, uid):
        with explained("create", POD, person.home, "eviction"):
            if await person.kube.evict(person.home, pod):
                return
        if not wait:
            raise Unavailable(
                f"pod {pod} may not be evicted now: its PodDisruptionBudget lets one worker go at "
                "a time",
                hint="try again when all workers are ready",
            )
        if not told:
            typer.echo(f"{pod} waits until its PodDisruptionBudget lets it go")
            told = True
        await asyncio.sleep(LOOK_SECONDS)


async def _is_there(person: Person, pod: str, uid: str) -> bool:
    with explained("get", POD, person.home):
        found = await person.kube.get(POD, person.home, pod)
    return found is not None and found["metadata"]["uid"] == uid
