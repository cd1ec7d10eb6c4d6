"""Every object of the chart, as a real API server sees it: nothing is stored."""

from typing import Any, Final

import pytest
from administrator import Administrator
from rendering import CI, NAMESPACE, rendered

MONITORING: Final = "monitoring.coreos.com/v1"
"""Kinds of the Prometheus operator, which this API server does not know."""
CLUSTER_WIDE: Final = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
IRREGULAR: Final = {"NetworkPolicy": "networkpolicies"}
HOOKS: Final = "rel-crossdock-hooks"


@pytest.fixture(scope="module", autouse=True)
def _restricted(plane: Any) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": NAMESPACE, "labels": labels}
    admin = Administrator(plane)
    admin.ask("POST", "/api/v1/namespaces", {"metadata": metadata})
    account = {"metadata": {"name": HOOKS}}  # else no pod is taken
    admin.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", account)


@pytest.mark.parametrize("values", CI, ids=CI)
def test_the_api_server_takes_every_object(admin: Administrator, values: str) -> None:
    kinds = set()
    for each in rendered(CI[values]):
        if each["apiVersion"] != MONITORING:
            path = f"{_path(each)}?dryRun=All&fieldValidation=Strict"
            if each["kind"] == "ServiceAccount" and each["metadata"]["name"] == HOOKS:
                continue
            admin.ask("POST", path, _fresh(each))
            kinds.add(each["kind"])
    assert {"Deployment", "Job", "Pod", "Role"} <= kinds


def _path(each: dict[str, Any]) -> str:
    version, kind = each["apiVersion"], each["kind"]
    root = "/api/v1" if version == "v1" else f"/apis/{version}"
    within = "" if kind in CLUSTER_WIDE else f"/namespaces/{each['metadata']['namespace']}"
    return f"{root}{within}/{IRREGULAR.get(kind, kind.lower() + 's')}"


def _fresh(each: dict[str, Any]) -> dict[str, Any]:
    """Return a CRD under a name that is not there yet."""
    if each["kind"] == "CustomResourceDefinition":  # ours are there already
        names = each["spec"]["names"]
        renamed = {k: v for k, v in names.items() if k not in {"shortNames", "categories"}}
        renamed |= {"plural": f"other{names['plural']}", "singular": f"other{names['singular']}"}
        renamed |= {"kind": f"Other{names['kind']}", "listKind": f"Other{names['listKind']}"}
        name = f"other{each['metadata']['name']}"
        return {**each, "metadata": {"name": name}, "spec": {**each["spec"], "names": renamed}}
    return each
