"""Attached jobs for tests: an engine whose executors are the pods of a Deployment."""

import base64
from collections.abc import Mapping
from typing import Any, Final

from administrator import Object
from specs import job
from staged_jobs import JobScene, condition

import crossdock

NAME: Final = "executors"
"""Of what is scaled."""
_PLURALS: Final = {"Deployment": "deployments", "StatefulSet": "statefulsets"}


class Engine:
    """A job `engine` of the scene's cluster, what it may scale, and its driver's words."""

    def __init__(
        self,
        scene: JobScene,
        *,
        kind: str = "Deployment",
        replicas: int = 0,
        annotated: bool = True,
    ) -> None:
        """Make what is scaled. The job comes with `apply`."""
        self.scene = scene
        self.kind = kind
        self._root = f"/apis/apps/v1/namespaces/{scene.namespace}/{_PLURALS[kind]}"
        labels = {"app": NAME}
        container = {"name": "executor", "image": "example.com/executor"}
        spec: dict[str, Any] = {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        }
        if kind == "StatefulSet":
            spec |= {"serviceName": NAME, "podManagementPolicy": "Parallel"}
        metadata: dict[str, Any] = {"name": NAME}
        if annotated:
            metadata["annotations"] = {"crossdock.dev/scalable-by": "engine"}
        scene.admin.ask("POST", self._root, {"metadata": metadata, "spec": spec})

    @property
    def path(self) -> str:
        return f"{self._root}/{NAME}"

    def apply(self, **executors: Any) -> Object:
        """Make the job."""
        target = {"apiVersion": "apps/v1", "kind": self.kind, "name": NAME}
        given = {"scaleTargetRef": target, "max": 8, "cooldownSeconds": 1, **executors}
        body = job("engine", clusterRef={"name": "main"}, executors=given)
        return self.scene.admin.create(self.scene.namespace, "shufflejobs", body)

    def say(
        self, tasks: int, busy: Mapping[str, int] | None = None, *, valid_seconds: float = 3600.0
    ) -> None:
        """Be the driver, with the token that an engine gets."""
        status = self.scene.wait(lambda s: s.get("connectionSecret"), "engine")
        name = status["connectionSecret"]
        path = f"/api/v1/namespaces/{self.scene.namespace}/secrets/{name}"
        data = self.scene.admin.ask("GET", path)["data"]
        secret = {name: base64.b64decode(text).decode() for name, text in data.items()}
        urls = [worker.url for worker in self.scene.workers]
        with crossdock.connect(urls, token=secret["token"]) as client:
            client.job(secret["job"]).report_demand(
                tasks, reporter="driver", busy=busy, valid_seconds=valid_seconds
            )

    def replicas(self) -> int:
        """Return how many replicas are wanted."""
        return int(self.scene.admin.ask("GET", self.path)["spec"]["replicas"])

    def pods(self) -> list[str]:
        """Return the names of the executors."""
        found = self.scene.admin.ask(
            "GET", f"/api/v1/namespaces/{self.scene.namespace}/pods?labelSelector=app={NAME}"
        )
        return [
            pod["metadata"]["name"]
            for pod in found["items"]
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def wait_pods(self, count: int) -> list[str]:
        """Wait until there are so many executors, as the spec wants them; return them."""

        def probe() -> bool:
            return self.replicas() == count and len(self.pods()) == count

        self.scene.until(f"{count} executors, not {self.replicas()}", probe)
        return sorted(self.pods())

    def wait_status(self, **numbers: int) -> Object:
        """Wait until the job's status says so of its executors; return it."""
        return self.scene.wait(
            lambda s: numbers.items() <= (s.get("executors") or {}).items(), "engine", f"{numbers}"
        )

    def wait_condition(self, kind: str, reason: str) -> Object:
        """Wait until a condition of the job has a reason; return it."""
        status = self.scene.wait(
            lambda s: condition(s, kind).get("reason") == reason, "engine", f"{kind}: {reason}"
        )
        return condition(status, kind)

    def told(self, reason: str) -> list[str]:
        """Return what events of a reason say, in their order."""
        events = [e for e in self.scene.listed("events") if e["reason"] == reason]
        events.sort(key=lambda e: int(e["metadata"]["resourceVersion"]))
        return [event["message"] for event in events]
