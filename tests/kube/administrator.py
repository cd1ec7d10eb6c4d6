"""What tests do to the API server: plain HTTP, nothing of the operator's."""

import json
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml
from control_plane import ADMIN_TOKEN, ControlPlane

from harness import WAIT_SECONDS, eventually

CRDS: Final = Path(__file__).parents[2] / "crds"
OURS: Final = "/apis/crossdock.dev/v1alpha1"
_CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
Object = dict[str, Any]


class Refused(Exception):
    """The API server's answer was an error."""

    def __init__(self, status: int, body: Object) -> None:
        super().__init__(f"{status}: {body.get('message')}")
        self.status = status
        self.message = str(body.get("message", ""))
        self.causes = [
            f"{cause.get('field', '')}: {cause.get('message', '')}"
            for cause in body.get("details", {}).get("causes", ())
        ]


class Administrator:
    """Calls the API server, by default with all rights."""

    def __init__(self, plane: ControlPlane, token: str = ADMIN_TOKEN) -> None:
        self._url = plane.url
        self._token = token
        self._context = ssl.create_default_context(cafile=plane.ca)

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | list[object] | None = None,
        *,
        content_type: str = "application/json",
        user: str = "",
    ) -> Object:
        """Send a request; return the answer, or raise `Refused`."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content_type}
        if user:
            headers["Impersonate-User"] = user
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + path, data=data, method=method, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._context) as response:
                found: Object = json.loads(response.read())
                return found
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
            body = json.loads(text) if text.startswith("{") else {"message": text}
            raise Refused(error.code, body) from None

    def get(self, path: str) -> Object | None:
        """Return an object, or None if it is not there."""
        try:
            return self.ask("GET", path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def history(self, path: str, version: str) -> list[Object]:
        """Return what an object became one after the other, from a version to its deletion."""
        root, _, name = path.rpartition("/")
        seconds = round(WAIT_SECONDS)
        query = {
            "watch": "1", "fieldSelector": f"metadata.name={name}", "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }  # fmt: skip
        request = urllib.request.Request(
            f"{self._url}{root}?{urlencode(query)}",
            headers={"Authorization": f"Bearer {self._token}"},
        )
        found: list[Object] = []
        with urllib.request.urlopen(request, timeout=seconds, context=self._context) as answer:
            for line in answer:
                event = json.loads(line)
                found.append(event["object"])
                if event["type"] == "DELETED":
                    return found
        raise AssertionError(f"{path} was not deleted")

    def merge(self, path: str, patch: Mapping[str, object]) -> Object:
        """Change an object by a merge patch."""
        return self.ask("PATCH", path, patch, content_type="application/merge-patch+json")

    def await_right(
        self, right: Mapping[str, str], *, user: str, groups: Sequence[str] = (), has: bool = True
    ) -> None:
        """Wait until the API server has taken in what roles grant, or that they do not any more.

        Args:
            right: verb, group, resource, subresource and namespace.
            user: whose right it is.
            groups: of that user.
            has: whether it shall be granted.
        """
        spec = {"user": user, "groups": list(groups), "resourceAttributes": dict(right)}

        def known() -> bool:
            review = self.ask("POST", _REVIEWS, {"spec": spec})
            return bool(review["status"].get("allowed")) is has

        eventually(known, what=f"{user} to {'have' if has else 'lose'} {right}")

    def install_crds(self) -> None:
        """Make our CRDs, and wait until they are served."""
        for path in sorted(CRDS.glob("*.yaml")):
            self.install_crd(path)

    def install_crd(self, path: Path) -> None:
        """Make a CRD of a file, and wait until it is served."""
        crd = yaml.safe_load(path.read_text())
        self.ask("POST", _CRDS, crd)
        spec = crd["spec"]
        plural, version = spec["names"]["plural"], spec["versions"][0]["name"]
        path = f"/apis/{spec['group']}/{version}/{plural}"
        eventually(lambda: self._served(path), what=f"{plural} to be served")

    def remove_crd(self, name: str) -> None:
        """Delete a CRD and all objects of its kind, and wait until it is gone."""
        path = f"{_CRDS}/{name}"
        self.ask("DELETE", path)
        eventually(lambda: self.get(path) is None, what=f"the end of CRD {name}")

    def _served(self, path: str) -> bool:
        try:
            return self.get(path) is not None
        except Refused as refused:
            if refused.status == 429:  # "storage is (re)initializing"
                return False
            raise

    def new_namespace(self) -> str:
        """Return the name of a new namespace."""
        name = f"test-{secrets.token_hex(4)}"
        self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def await_service_account(self, namespace: str) -> None:
        """Wait for the account without which no pod is taken; the controllers make it."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        eventually(lambda: self.get(path), what="the default service account")

    def make_ready(self, namespace: str, pod: str) -> None:
        """Play the kubelet: say of a pod, when it is there, that it runs and is ready."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
        eventually(lambda: self.get(path), what=f"pod {pod}")
        conditions = [{"type": "Ready", "status": "True"}]
        ips = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
        status = {"phase": "Running", "conditions": conditions, **ips}
        self.merge(f"{path}/status", {"status": status})

    def create(self, namespace: str, plural: str, body: Mapping[str, object]) -> Object:
        """Make one of our objects; unknown fields are errors, as with `kubectl apply`."""
        path = f"{OURS}/namespaces/{namespace}/{plural}?fieldValidation=Strict"
        return self.ask("POST", path, body)
