"""Which workers of a cluster there are now, and where they answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from crossdock.wire import tokens
from crossdock.wire.tokens import ANY_JOB, Right
from crossdock_operator.kinds import POD
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.plan.cluster import replicas
from crossdock_operator.plan.ending import worker_addresses, worker_pods, worker_urls
from crossdock_operator.records import Cluster
from crossdock_operator.storage.access import Access
from crossdock_operator.storage.tasks import Place, place_of

_TOKEN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Reach:
    """Finds the workers of clusters."""

    kube: Kube
    resolve: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    """By namespace and name of a cluster, URLs of its workers; default: their names."""

    async def place(self, access: Access, cluster: Cluster | None) -> Place:
        """Return where work for a cluster is done now.

        Args:
            access: to it.
            cluster: the ShuffleCluster, if it is there.

        Raises:
            KubeError: of the API server.
        """
        labels = f"{names.CLUSTER_UID}={access.cluster}"
        every = self.kube.every(POD, access.namespace, labels=labels)
        found = [pod async for pod in every]
        pods = set(worker_pods(found))
        if access.keeps_disks and cluster is not None and cluster.uid == access.cluster:
            # Between two pods of one disk there is none: whoever comes next has its files.
            pods |= {f"{names.workers(cluster)}-{n}" for n in range(replicas(cluster))}
        endpoints: tuple[str, ...] = ()
        if pods:
            named = tuple(self.resolve.get((access.namespace, access.name), ()))
            endpoints = named or worker_urls(
                sorted(pods),
                scheme=access.scheme,
                namespace=access.namespace,
                cluster=access.name,
                processes=access.processes,
            )
        return place_of(
            access,
            endpoints=endpoints,
            addresses=worker_addresses(found, namespace=access.namespace, cluster=access.name),
            token=administrators_token(access),
        )


def administrators_token(access: Access) -> str:
    """Return a token that opens all of a cluster's workers for a while."""
    key = tokens.parse_keys(access.keys)[0]
    return tokens.mint(key, job=ANY_JOB, rights=[Right.ADMIN], ttl_seconds=_TOKEN_SECONDS)
