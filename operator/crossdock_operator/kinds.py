"""The kinds of objects that the operator touches, and where the API server has them."""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from crossdock_operator.api.common import GROUP, VERSION

Object: TypeAlias = dict[str, Any]
"""An object of Kubernetes as it is on the wire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of namespaced object."""

    name: str
    plural: str
    group: str = ""
    version: str = "v1"

    @property
    def api_version(self) -> str:
        """What objects of the kind have in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", sub: str = "") -> str:
        """Return the path of an object, of its subresource, or of all objects."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        below = "".join(f"/{quote(part, safe='')}" for part in (name, sub) if part)
        return f"{root}{within}/{self.plural}{below}"


SHUFFLE_CLUSTER: Final = Kind(
    name="ShuffleCluster", plural="shuffleclusters", group=GROUP, version=VERSION
)
SHUFFLE_JOB: Final = Kind(name="ShuffleJob", plural="shufflejobs", group=GROUP, version=VERSION)
DEPLOYMENT: Final = Kind(name="Deployment", plural="deployments", group="apps")
STATEFUL_SET: Final = Kind(name="StatefulSet", plural="statefulsets", group="apps")
SERVICE: Final = Kind(name="Service", plural="services")
SERVICE_ACCOUNT: Final = Kind(name="ServiceAccount", plural="serviceaccounts")
SECRET: Final = Kind(name="Secret", plural="secrets")
POD: Final = Kind(name="Pod", plural="pods")
POD_DISRUPTION_BUDGET: Final = Kind(
    name="PodDisruptionBudget", plural="poddisruptionbudgets", group="policy"
)
NETWORK_POLICY: Final = Kind(
    name="NetworkPolicy", plural="networkpolicies", group="networking.k8s.io"
)
HORIZONTAL_POD_AUTOSCALER: Final = Kind(
    name="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    group="autoscaling",
    version="v2",
)
SERVICE_MONITOR: Final = Kind(
    name="ServiceMonitor", plural="servicemonitors", group="monitoring.coreos.com"
)
CLUSTER_ROLE_BINDING: Final = Kind(
    name="ClusterRoleBinding", plural="clusterrolebindings", group="rbac.authorization.k8s.io"
)
"""Of no namespace."""
LEASE: Final = Kind(name="Lease", plural="leases", group="coordination.k8s.io")
CONFIG_MAP: Final = Kind(name="ConfigMap", plural="configmaps")
JOB: Final = Kind(name="Job", plural="jobs", group="batch")
NAMESPACE: Final = Kind(name="Namespace", plural="namespaces")
EVENT: Final = Kind(name="Event", plural="events")
SELF_SUBJECT_REVIEW: Final = Kind(
    name="SelfSubjectReview", plural="selfsubjectreviews", group="authentication.k8s.io"
)
TOKEN_REVIEW: Final = Kind(name="TokenReview", plural="tokenreviews", group="authentication.k8s.io")
SUBJECT_ACCESS_REVIEW: Final = Kind(
    name="SubjectAccessReview", plural="subjectaccessreviews", group="authorization.k8s.io"
)
