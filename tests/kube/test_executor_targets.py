"""What changes of executors' targets between a look and a step, on a real API server."""

from collections.abc import Mapping
from typing import Any

import pytest
from administrator import Administrator

from crossdock.demand import Need
from crossdock_operator.api.job import Executors, ScaleTarget, ShuffleJobSpec
from crossdock_operator.jobs.tools import Tools
from crossdock_operator.jobs.workers import Workers
from crossdock_operator.kube import Kube
from crossdock_operator.records import Job, Key
from crossdock_operator.scaling.executors import ExecutorScaler
from crossdock_operator.scaling.polls import Polls
from crossdock_operator.store import Store

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
    """A Deployment with pods, as controllers would have it, and what scales it."""

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

    def make(self, pods: int, *, updated: int) -> None:
        labels = {"app": NAME}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [CONTAINER]}}
        metadata = {"name": NAME, "annotations": {"crossdock.dev/scalable-by": "engine"}}
        spec = {"replicas": pods, "selector": {"matchLabels": labels}, "template": template}
        self.admin.ask("POST", self._root, {"metadata": metadata, "spec": spec})
        status = {"observedGeneration": 1, "replicas": pods, "updatedReplicas": updated}
        self.admin.merge(f"{self.path}/status", {"status": status})
        root = f"/api/v1/namespaces/{self._namespace}"
        self.admin.ask("POST", f"{root}/serviceaccounts", {"metadata": {"name": "default"}})
        for n in range(pods):
            metadata = {"name": f"e-{n}", "labels": labels}
            self.admin.ask("POST", f"{root}/pods", {"metadata": metadata, "spec": template["spec"]})

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
    target.make(2, updated=2)

    def taken_back() -> None:
        kube.before_write = None
        admin.merge(target.path, {"metadata": {"annotations": {"crossdock.dev/scalable-by": None}}})

    kube.before_write = taken_back
    await target.advance()
    assert target.replicas == 2, "nobody allows it any more"
    assert (await target.advance()).scaled.reason == "NotAnnotated"


@pytest.mark.parametrize(("updated", "left"), [(2, 1), (1, 2)])
async def test_nobody_goes_in_a_rollout_while_one_is_busy(
    kube: Kube, admin: Administrator, namespace: str, updated: int, left: int
) -> None:
    target = Target(kube, admin, namespace)
    target.make(2, updated=updated)
    target.words.busy = {"e-0": 1, "e-1": 0}
    await target.advance()
    assert target.replicas == left


async def test_what_somebody_else_did_is_told_once(
    kube: Kube, admin: Administrator, namespace: str
) -> None:
    """Also where what this operator then does comes too late, and is tried again."""
    target = Target(kube, admin, namespace)
    target.make(2, updated=2)
    await target.advance()
    assert target.replicas == 0
    admin.merge(f"{target.path}/scale", {"spec": {"replicas": 3}})
    writes = iter(range(9))

    def changed() -> None:  # the event is written, and then replicas are
        if next(writes) == 1:
            admin.merge(target.path, {"metadata": {"labels": {"changed": "now"}}})

    kube.before_write = changed
    await target.advance()
    assert target.replicas == 3, "it was too late"
    await target.advance()
    assert target.replicas == 0
    events = admin.ask("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    assert [each["reason"] for each in events].count("ReplicasChanged") == 1
