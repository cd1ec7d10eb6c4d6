"""Errors of the operator's calls to Kubernetes.

KubeError
├── Stale           somebody was faster: look again
├── Vanished        what was to be changed is not there
├── Expired         this place in a list or watch is gone: begin anew
├── Refused         the object is not valid, and why
├── NotAllowed      the operator lacks a right
└── ApiUnavailable  not now, and nobody knows whether it was done
    └── Throttled   the server is busy, and it was not done
"""

from typing import ClassVar

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
    """The operator lacks a right (401, 403)."""

    code = "kube_not_allowed"
    hint = "compare the operator's roles with those of its manifests"


class ApiUnavailable(KubeError):
    """The API server does not answer, or cannot now; nobody knows whether it was done."""

    code = "kube_unavailable"


class Throttled(ApiUnavailable):
    """The API server is busy; it was not done (429)."""

    code = "kube_throttled"

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
