"""A namespace with an operator for it."""

from collections.abc import Callable
from typing import Any

from administrator import OURS, Administrator, Object
from operators import OperatorProcess
from specs import cluster

from harness import eventually

PATHS = {
    "statefulsets": "/apis/apps/v1",
    "services": "/api/v1",
    "serviceaccounts": "/api/v1",
    "secrets": "/api/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "pods": "/api/v1",
    "servicemonitors": "/apis/monitoring.coreos.com/v1",
}
SECONDS = 120.0
"""More than a watch may be silent: an API server that has just begun does not always tell."""


class Scene:
    """One namespace, in which only restricted pods may run, with an operator for it."""

    def __init__(self, admin: Administrator, namespace: str, operator: OperatorProcess) -> None:
        self.admin = admin
        self.namespace = namespace
        self.operator = operator

    def path(self, plural: str, name: str) -> str:
        root = OURS if plural.startswith("shuffle") else PATHS[plural]
        return f"{root}/namespaces/{self.namespace}/{plural}/{name}"

    def get(self, plural: str, name: str) -> Object | None:
        return self.admin.get(self.path(plural, name))

    def create(self, **spec: Any) -> Object:
        return self.admin.create(self.namespace, "shuffleclusters", cluster(**spec))

    def change(self, **spec: Any) -> Object:
        return self.admin.merge(self.path("shuffleclusters", "main"), {"spec": spec})

    def wait(self, plural: str, name: str, holds: Callable[[Object], object] = bool) -> Object:
        def probe() -> Object | None:
            found = self.get(plural, name)
            return found if found is not None and holds(found) else None

        try:
            found = eventually(probe, seconds=SECONDS, what=f"{plural} {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.operator.log()[-3000:]}") from None
        assert found is not None
        return found

    def wait_status(self, holds: Callable[[Object], object]) -> Object:
        found = self.wait("shuffleclusters", "main", lambda o: holds(o.get("status") or {}))
        status: Object = found["status"]
        return status

    def make_ready(self, count: int) -> None:
        """Play the kubelet: say of so many worker pods that they are ready."""
        for n in range(count):
            self.admin.make_ready(self.namespace, f"main-worker-{n}")

    def hold_pod(self, name: str) -> None:
        """Have a pod take its time to go when it is deleted, as one that drains does."""
        self._hold(name, ["tests.crossdock.dev/hold"])

    def let_pod_go(self, name: str) -> None:
        self._hold(name, [])

    def _hold(self, name: str, finalizers: list[str]) -> None:
        self.admin.merge(self.path("pods", name), {"metadata": {"finalizers": finalizers}})


def condition(status: Object, kind: str) -> Object:
    """Return a condition of a status; empty if it is not there."""
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})
