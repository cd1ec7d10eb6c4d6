"""What the operator may do: every verb that it uses, and no other."""

from administrator import Administrator

NAMESPACED = {
    ("crossdock.dev", "shuffleclusters"): ["list", "watch"],
    ("crossdock.dev", "shuffleclusters/status"): ["patch"],
    ("crossdock.dev", "shufflejobs"): ["list", "watch", "delete"],
    ("crossdock.dev", "shufflejobs/status"): ["patch"],
    ("apps", "statefulsets"): ["list", "watch", "create", "patch"],
    ("", "services"): ["list", "watch", "create", "patch"],
    ("", "serviceaccounts"): ["list", "watch", "create", "patch"],
    ("", "secrets"): ["list", "watch", "create", "get", "patch"],
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
    rules = [
        {"apiGroups": [group], "resources": [resource], "verbs": verbs}
        for (group, resource), verbs in NAMESPACED.items()
    ]
    root = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    admin.ask("POST", f"{root}/roles", {"metadata": {"name": "operator"}, "rules": rules})
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "operator"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "operator"}],
    }
    admin.ask("POST", f"{root}/rolebindings", binding)
