"""Gives the user `operator` what the operator's own roles say, and no more."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from administrator import Administrator, Object, Refused

from crossdock_operator.plan.owners import OwnerKind
from crossdock_operator.rbac import looked_after, own_namespace, reviews

_GROUP = "rbac.authorization.k8s.io"
_ROOT = f"/apis/{_GROUP}/v1"


def grant(
    admin: Administrator, namespace: str, *watched: str, owners: Sequence[OwnerKind] = ()
) -> None:
    """Let an operator run in a namespace, and look after objects there or in those named."""
    grant_reviews(admin)
    _bind(admin, "Role", "operator", own_namespace(), namespace)
    for each in watched or (namespace,):
        _bind(admin, "Role", "operator-jobs", looked_after(owners=owners), each)


def grant_all(admin: Administrator, namespace: str) -> None:
    """Let an operator run in a namespace, and look after objects everywhere."""
    grant_reviews(admin)
    _bind(admin, "Role", "operator", own_namespace(), namespace)
    _bind(admin, "ClusterRole", "operator", looked_after())


def grant_reviews(admin: Administrator) -> None:
    """Let operators ask who somebody is: for the session, since it is of no namespace."""
    try:
        _bind(admin, "ClusterRole", "operator-reviews", reviews())
    except Refused as refused:
        if refused.status != 409:
            raise


@contextmanager
def granted_everywhere(admin: Administrator) -> Iterator[None]:
    """Give an operator all its rights in all namespaces, until the context ends.

    A Role goes with its namespace, and with it the right to let go what is held there.
    """
    _bind(admin, "ClusterRole", "operator-tests", [*looked_after(), *own_namespace()])
    try:
        yield
    finally:
        for plural in ("clusterrolebindings", "clusterroles"):
            admin.ask("DELETE", f"{_ROOT}/{plural}/operator-tests")


def _bind(
    admin: Administrator, kind: str, name: str, rules: Sequence[Object], namespace: str = ""
) -> None:
    root = f"{_ROOT}/namespaces/{namespace}" if namespace else _ROOT
    plural = f"{kind.lower()}s"
    role: dict[str, Any] = {"metadata": {"name": name}, "rules": rules}
    admin.ask("POST", f"{root}/{plural}", role)
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": _GROUP, "kind": kind, "name": name},
        "subjects": [{"apiGroup": _GROUP, "kind": "User", "name": "operator"}],
    }
    admin.ask("POST", f"{root}/{kind.lower()}bindings", binding)
    for rule in rules:
        admin.await_right(_right(rule, namespace), user="operator")


def _right(rule: Object, namespace: str) -> dict[str, str]:
    """Return one of the rights of a rule."""
    resource, _, subresource = rule["resources"][-1].partition("/")
    return {
        "verb": rule["verbs"][-1],
        "group": rule["apiGroups"][-1],
        "resource": resource,
        "subresource": subresource,
        "namespace": namespace,
        "name": next(iter(rule.get("resourceNames", ())), ""),
    }
