"""Errors of the operator's calls to Kubernetes.

KubeError
├── Stale           somebody was faster: look again
├── Vanished        what was to be changed is not there
├── Expired         this place in a list or watch is gone: begin anew
├── Refused         the object is not valid, and why
├── NotAllowed      the operator lacks a right, or a quota or policy forbids it
└── ApiUnavailable  not now, and nobody knows whether it was done
    └── Throttled   the server is busy, and it was not done
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from crossdock.errors import CrossdockError


class KubeError(CrossdockError):
    """A call to Kubernetes failed."""

    code: ClassVar[str] = "kube"


class Stale(KubeError):
    """The object changed meanwhile, exists already, or a field is somebody else's (409)."""

    code = "kube_stale"


class Vanished(KubeError):
    """The object, or its namespace, is not there (404), or its namespace is going away."""

    code = "kube_vanished"


class Expired(KubeError):
    """The place in a list is too old (410)."""

    code = "kube_expired"


class Refused(KubeError):
    """The API server finds the object wrong (400, 422)."""

    code = "kube_refused"


class NotAllowed(KubeError):
    """The operator lacks a right, or a quota or policy forbids it (401, 403)."""

    code = "kube_not_allowed"
    hint = "compare the operator's roles with those of its manifests, if no quota or policy says it"


class ApiUnavailable(KubeError):
    """The API server does not answer, or cannot now; nobody knows whether it was done."""

    code = "kube_unavailable"


class Throttled(ApiUnavailable):
    """The API server is busy; it was not done (429)."""

    code = "kube_throttled"

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


_ERRORS: Final[dict[int, type[KubeError]]] = {
    400: Refused,
    401: NotAllowed,
    403: NotAllowed,
    404: Vanished,
    409: Stale,
    410: Expired,
    422: Refused,
    429: Throttled,
}


def error_of(what: str, status: int, headers: Mapping[str, str], data: bytes) -> KubeError:
    """Return the error that an answer of the API server says; `what` was asked."""
    answer: dict[str, Any] = {}
    if data.startswith(b"{"):
        answer = json.loads(data)
    message = answer.get("message") or data[:200].decode(errors="replace")
    kind = _ERRORS.get(status, ApiUnavailable if status >= 500 else KubeError)
    causes = answer.get("details", {}).get("causes") or ()
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        kind = Vanished  # it is 403, and yet no right would help
    if kind is Throttled:
        seconds = headers.get("Retry-After", "1")
        return Throttled(
            f"{what}: {message}",
            retry_after_seconds=float(seconds) if seconds.isdigit() else 1.0,
        )
    return kind(f"{what}: {status} {message}")
