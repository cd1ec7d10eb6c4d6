"""People of the tests: service accounts with tokens, and what the plugin tells them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from administrator import Administrator, Object
from control_plane import ADMIN_TOKEN, ControlPlane

PLUGIN = Path(sys.executable).with_name("kubectl-crossdock")
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
LOOK = ("get", "list", "watch")


class Person:
    """Somebody with a token."""

    def __init__(self, plane: ControlPlane, token: str, directory: Path) -> None:
        self.token = token
        self.kubeconfig = directory / f"kubeconfig-{abs(hash(token))}"
        self.kubeconfig.write_text(plane.kubeconfig.read_text().replace(ADMIN_TOKEN, token))

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Begin a command of the plugin."""
        return subprocess.Popen(
            [PLUGIN, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            text=True,
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the plugin."""
        return subprocess.run(
            [PLUGIN, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )  # fmt: skip


def account(admin: Administrator, namespace: str, name: str) -> str:
    """Make a service account; return a token of it."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    admin.ask("POST", path, {"metadata": {"name": name}})
    answer = admin.ask("POST", f"{path}/{name}/token", {"spec": {"expirationSeconds": 3600}})
    return str(answer["status"]["token"])


def allow(
    admin: Administrator,
    namespace: str,
    name: str,
    *resources: str,
    verbs: Sequence[str] = LOOK,
    of: str = "",
) -> None:
    """Let a service account of the namespace `of` (default: this one) do something here.

    It may when this returns: the API server takes in what roles say some time later.
    """
    rules: list[Object] = [
        {"apiGroups": ["crossdock.dev", ""], "resources": list(resources), "verbs": list(verbs)}
    ]
    role = f"{name}-{'-'.join(each.replace('/', '-') for each in resources)}"
    root = f"{_RBAC}/namespaces/{namespace}"
    admin.ask("POST", f"{root}/roles", {"metadata": {"name": role}, "rules": rules})
    admin.ask("POST", f"{root}/rolebindings", {
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": of or namespace}],
    })  # fmt: skip
    resource, _, subresource = resources[-1].partition("/")
    group = "crossdock.dev" if resource.startswith("shuffle") else ""
    right = {"verb": verbs[-1], "group": group, "resource": resource, "namespace": namespace}
    user = f"system:serviceaccount:{of or namespace}:{name}"
    admin.await_right({**right, "subresource": subresource}, user=user)
