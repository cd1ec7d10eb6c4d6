"""Which jobs live, as Kubernetes says: for `crossdock audit --kube`.

All ShuffleJobs do, whichever cluster they name and also while they are being deleted: their uids
are unique, so one too many keeps nothing, and a filter could only err. Errors end it: what was not
listed whole is not known.
"""

import asyncio
import os
from pathlib import Path
from typing import Final

from crossdock.errors import ConfigError
from crossdock_operator.errors import Expired, KubeError, NotAllowed, Vanished
from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB, Kind
from crossdock_operator.kube import Kube

_TRIES: Final = 3
"""Of a list whose later pages are gone before they were asked for."""
_DEFAULT_KUBECONFIG: Final = Path.home() / ".kube" / "config"


def live_jobs(cluster: str) -> frozenset[str]:
    """Return the uids of all ShuffleJobs (`crossdock.cleanup.living.LiveJobs`).

    Args:
        cluster: uid of the ShuffleCluster that is asked for: what has it, is the right Kubernetes.

    Raises:
        ConfigError: there is no such ShuffleCluster, or there are no credentials.
        KubeError: the API server does not answer, or does not allow to list.
    """
    return asyncio.run(_live_jobs(cluster))


async def _live_jobs(cluster: str) -> frozenset[str]:
    async with await Kube.connect(kubeconfig()) as kube:
        if cluster not in await uids_of(kube, SHUFFLE_CLUSTER):
            raise ConfigError(
                f"Kubernetes has no ShuffleCluster with the uid {cluster}",
                hint="is this the right context? Of a cluster that was deleted, say --live ''",
            )
        return await uids_of(kube, SHUFFLE_JOB)


def kubeconfig() -> Path | None:
    """Return the current kubeconfig, as kubectl finds it; None: the pod's account."""
    named = os.environ.get("KUBECONFIG", "")
    if named:
        return Path(named)
    return _DEFAULT_KUBECONFIG if _DEFAULT_KUBECONFIG.exists() else None


async def uids_of(kube: Kube, kind: Kind) -> frozenset[str]:
    """Return the uids of all objects of a kind, in all namespaces.

    Raises:
        Expired: each try took too long.
        NotAllowed: the credentials may not list them everywhere.
        KubeError: the kind is not there, or the API server does not answer.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return frozenset([str(each["metadata"]["uid"]) async for each in kube.every(kind)])
        except Expired:
            if tries == _TRIES:
                raise
        except NotAllowed as error:
            raise NotAllowed(
                error.message, hint=f"it takes the right to list {kind.plural} of all namespaces"
            ) from error
        except Vanished as error:
            raise KubeError(
                error.message, hint="Crossdock's CRDs are not installed: is this the right context?"
            ) from error
