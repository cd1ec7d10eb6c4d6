"""What the operator may do: every verb that it uses, and no other."""

from collections.abc import Iterator
from contextlib import contextmanager

from administrator import Administrator

NAMESPACED = {
    ("crossdock.dev", "shuffleclusters"): ["list", "watch", "get", "patch"],
    ("crossdock.dev", "shuffleclusters/status"): ["patch"],
    ("crossdock.dev", "shufflejobs"): ["list", "watch", "patch", "delete"],
    ("crossdock.dev", "shufflejobs/status"): ["patch"],
    ("apps", "statefulsets"): ["list", "watch", "create", "patch"],
    ("", "services"): ["list", "watch", "create", "patch"],
    ("", "serviceaccounts"): ["list", "watch", "create", "patch"],
    ("", "secrets"): ["list", "watch", "create", "get", "patch", "delete"],
    ("", "configmaps"): ["create", "get", "update"],
    ("", "events"): ["create"],
    ("", "namespaces"): ["get"],
    ("", "pods"): ["list"],
    ("batch", "jobs"): ["list", "watch", "create", "get", "patch", "delete"],
    ("policy", "poddisruptionbudgets"): ["list", "watch", "create", "patch"],
    ("networking.k8s.io", "networkpolicies"): ["list", "watch", "create", "patch"],
    ("coordination.k8s.io", "leases"): ["get", "create", "update"],
    # Who owns an object with blockOwnerDeletion must be allowed to hold up its owner's end.
    ("crossdock.dev", "shuffleclusters/finalizers"): ["update"],
}


def grant(admin: Administrator, namespace: str) -> None:
    """Give the operator its rights in one namespace."""
    root = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    admin.ask("POST", f"{root}/roles", {"metadata": {"name": "operator"}, "rules": _rules()})
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "operator"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "operator"}],
    }
    admin.ask("POST", f"{root}/rolebindings", binding)


@contextmanager
def granted_everywhere(admin: Administrator) -> Iterator[None]:
    """Give the operator its rights in all namespaces, until the context ends.

    A Role goes with its namespace, and with it the right to let go what is held there.
    """
    root, group = "/apis/rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"
    body = {"metadata": {"name": "operator-tests"}, "rules": _rules()}
    admin.ask("POST", f"{root}/clusterroles", body)
    binding = {
        "metadata": {"name": "operator-tests"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "operator-tests"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "operator"}],
    }
    admin.ask("POST", f"{root}/clusterrolebindings", binding)
    try:
        yield
    finally:
        admin.ask("DELETE", f"{root}/clusterrolebindings/operator-tests")
        admin.ask("DELETE", f"{root}/clusterroles/operator-tests")


def _rules() -> list[dict[str, object]]:
    return [
        {"apiGroups": [group], "resources": [resource], "verbs": verbs}
        for (group, resource), verbs in NAMESPACED.items()
    ]
