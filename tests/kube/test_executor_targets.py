"""What changes of executors' targets between a look and a step, on a real API server."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from administrator import Administrator, Object

from crossdock.demand import Need
from crossdock_operator.api.job import Executors, ScaleTarget, ShuffleJobSpec
from crossdock_operator.jobs.tools import Tools
from crossdock_operator.jobs.workers import Workers
from crossdock_operator.kube import Kube
from crossdock_operator.records import Job, Key
from crossdock_operator.scaling.executors import ExecutorScaler
from crossdock_operator.scaling.polls import Polls
from crossdock_operator.store import Store
from harness import WAIT_SECONDS, eventually

pytestmark = pytest.mark.usefixtures("_controllers")

NAME = "executors"
EXECUTORS = Executors(
    scale_target_ref=ScaleTarget(api_version="apps/v1", kind="Deployment", name=NAME),
    max=8,
    cooldown_seconds=0,
)


class Words(Polls):
    """An engine that has nothing to do, and says so."""

    busy: Mapping[str, int] = {}

    def need(self, job: Job) -> tuple[Need | None, bool]:
        assert job.uid
        return Need(0, dict(self.busy)), True


class Target:
    """A Deployment, and what scales it."""

    def __init__(self, kube: Kube, admin: Administrator, namespace: str) -> None:
        self.admin, self.kube, self._namespace = admin, kube, namespace
        self._root = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        self.path = f"{self._root}/{NAME}"
        workers, store = Workers(kube, {}), Store()
        self.words = Words(workers, store, lambda *_: None)
        self._scaler = ExecutorScaler(Tools(kube, store, workers, wake=lambda *_: None), self.words)
        spec = ShuffleJobSpec(executors=EXECUTORS)
        self._job = Job(
            key=Key(namespace, "engine"), uid="u-1", generation=1, deleting=False,
            finalizers=(), spec=spec, status={},
        )  # fmt: skip

    def make(self, pods: int) -> list[str]:
        """Have so many executors; return their names."""
        labels = {"app": NAME}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [CONTAINER]}}
        metadata = {"name": NAME, "annotations": {"crossdock.dev/scalable-by": "engine"}}
        spec = {"replicas": pods, "selector": {"matchLabels": labels}, "template": template}
        self.admin.ask("POST", self._root, {"metadata": metadata, "spec": spec})
        self.wait(lambda status: status.get("updatedReplicas") == pods)
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        return [pod["metadata"]["name"] for pod in self.admin.ask("GET", path)["items"]]

    def wait(self, holds: Callable[[Object], bool]) -> None:
        """Wait until the controllers say so of its newest spec."""

        def probe() -> bool:
            body = self.admin.ask("GET", self.path)
            status = body.get("status", {})
            known = status.get("observedGeneration") == body["metadata"]["generation"]
            return known and holds(status)

        eventually(probe, what="the controllers")

    async def goes_to(self, replicas: int) -> None:
        """Advance until there shall be so many; controllers change the target, too."""
        async with asyncio.timeout(WAIT_SECONDS):
            while self.replicas != replicas:
                await self.advance()

    async def advance(self) -> Any:
        return await self._scaler.advance(self._job, EXECUTORS)

    @property
    def replicas(self) -> int:
        return int(self.admin.ask("GET", self.path)["spec"]["replicas"])


CONTAINER = {"name": "executor", "image": "example.com/executor"}


async def test_what_changed_since_it_was_looked_at_is_looked_at_again(
    kube: Kube, admin: Administrator, namespace: str
) -> None:
    target = Target(kube, admin, namespace)
    target.make(2)

    def taken_back() -> None:
        kube.before_write = None
        admin.merge(target.path, {"metadata": {"annotations": {"crossdock.dev/scalable-by": None}}})

    kube.before_write = taken_back
    await target.advance()
    assert target.replicas == 2, "nobody allows it any more"
    assert (await target.advance()).scaled.reason == "NotAnnotated"


async def test_nobody_goes_in_a_rollout_while_one_is_busy(
    kube: Kube, admin: Administrator, namespace: str
) -> None:
    target = Target(kube, admin, namespace)
    busy, idle = target.make(2)
    target.words.busy = {busy: 1, idle: 0}
    image = {"containers": [CONTAINER | {"image": "example.com/newer"}]}
    admin.merge(target.path, {"spec": {"template": {"spec": image}}})
    target.wait(lambda status: status.get("updatedReplicas") == 1)
    for _ in range(3):
        await target.advance()
    assert target.replicas == 2
    target.words.busy = {}
    await target.goes_to(0)


async def test_what_somebody_else_did_is_told_once(
    kube: Kube, admin: Administrator, namespace: str
) -> None:
    """Also where what this operator then does comes too late, and is tried again."""
    target = Target(kube, admin, namespace)
    target.make(2)
    await target.goes_to(0)
    admin.merge(f"{target.path}/scale", {"spec": {"replicas": 3}})
    target.wait(lambda status: status.get("replicas") == 3)
    writes = iter(range(99))

    def changed() -> None:  # the event is written, and then replicas are
        if next(writes) == 1:
            admin.merge(target.path, {"metadata": {"labels": {"changed": "now"}}})

    kube.before_write = changed
    await target.advance()
    assert target.replicas == 3, "it was too late"
    await target.goes_to(0)
    events = admin.ask("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    assert [each["reason"] for each in events].count("ReplicasChanged") == 1
