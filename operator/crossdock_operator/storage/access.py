"""What it takes to reach a cluster's store and workers, also when the cluster itself is gone."""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from crossdock.errors import ConfigError
from crossdock_operator.api.cluster import Store
from crossdock_operator.kinds import Object
from crossdock_operator.plan import names
from crossdock_operator.records import Cluster, digest

CREDENTIALS: Final = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    }
)
"""Of a cluster's Secret, what the operator takes into an environment. Not more: another variable
could have its process load a library, or send its own token somewhere."""
_FIELD: Final = "access"
"""Of the Secret with the copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One cluster's store and workers."""

    cluster: str
    """Its uid."""
    namespace: str
    name: str
    store: str
    """URL."""
    options: tuple[str, ...] = ()
    """Of the store, NAME=VALUE each."""
    settle_seconds: float = 30.0
    credentials: Mapping[str, str] | None = None
    """Environment variables; None: the operator's own account opens the store."""
    keys: str = ""
    """The workers' key file."""
    authority: str = ""
    """What their certificates are checked with, PEM; empty: the system's."""
    scheme: str = "http"
    processes: int = 1
    """Workers of a pod."""
    keeps_disks: bool = False
    """Whether a worker's disk outlives its pod."""

    @property
    def digest(self) -> str:
        """Changes with anything of it."""
        return digest(asdict(self))

    def to_secret(self, namespace: str) -> Object:
        """Return the Secret that keeps it, in the operator's namespace."""
        text = json.dumps(asdict(self), sort_keys=True)
        labels = {names.MANAGED_BY: names.MANAGER, names.CLUSTER_UID: self.cluster}
        return {
            "metadata": {
                "name": names.access_copy(self.cluster),
                "namespace": namespace,
                "labels": labels,
                "annotations": {names.COPY_OF: f"{self.namespace}/{self.name}"},
            },
            "data": {_FIELD: base64.b64encode(text.encode()).decode()},
        }

    @classmethod
    def from_secret(cls, body: Object) -> Self:
        """Read the Secret, ignoring fields of later versions; or raise `ConfigError`."""
        try:
            data: dict[str, Any] = json.loads(base64.b64decode(body["data"][_FIELD]))
            known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
            return cls(**{**known, "options": tuple(known.get("options", ()))})
        except (KeyError, TypeError, ValueError) as error:
            name = body["metadata"]["name"]
            raise ConfigError(
                f"the Secret {name} is not what the operator wrote: {error!r}",
                hint="delete it while its ShuffleCluster is there: it is then made again",
            ) from error


def access_to(cluster: Cluster, *, keys: str, credentials: Object | None, authority: str) -> Access:
    """Return what it takes to reach a cluster.

    Args:
        cluster: the cluster.
        keys: of its workers, as their key file has them.
        credentials: the Secret that its spec names, if it names one.
        authority: of its workers' certificates, PEM.
    """
    store = cluster.spec.store
    found = None
    if store.credentials_secret_ref is not None:
        found = _variables(credentials, store.credentials_secret_ref.name)
    return Access(
        cluster=cluster.uid,
        namespace=cluster.key.namespace,
        name=cluster.key.name,
        store=store.url,
        options=store_options(store),
        settle_seconds=float(store.settle_seconds),
        credentials=found,
        keys=keys,
        authority=authority,
        scheme=names.scheme(cluster),
        processes=cluster.spec.workers.processes,
        keeps_disks=cluster.spec.workers.storage.volume_claim is not None,
    )


def store_options(store: Store) -> tuple[str, ...]:
    """Return a store's options as the command line takes them."""
    named: dict[str, object] = {
        "endpoint_url": store.endpoint,
        "region": store.region,
        "path_style": "true" if store.path_style else "",
    }
    return tuple(f"{name}={value}" for name, value in named.items() if value)


def text_of(secret: Object, field: str) -> str:
    """Return a field of a Secret, or "" if it has none."""
    value = (secret.get("data") or {}).get(field)
    return base64.b64decode(value).decode() if isinstance(value, str) else ""


def _variables(secret: Object | None, name: str) -> dict[str, str]:
    if secret is None:
        raise ConfigError(
            f"there is no Secret {name}, which spec.store.credentialsSecretRef names",
            hint="make it, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    return {field: text_of(secret, field) for field in secret.get("data") or () if
            field in CREDENTIALS}  # fmt: skip
