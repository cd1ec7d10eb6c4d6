"""An authority of a cluster's own, and the certificate of its workers: when each is made anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from crossdock_operator.plan import names
from crossdock_operator.records import Cluster

_DAY_SECONDS: Final = 86_400.0
CERTIFICATE_SECONDS: Final = 90 * _DAY_SECONDS
RENEW_SECONDS: Final = 30 * _DAY_SECONDS
"""A certificate is replaced when it is good for no longer than this; workers read it again."""
AUTHORITY_SECONDS: Final = 3650 * _DAY_SECONDS
REPLACE_SECONDS: Final = 365 * _DAY_SECONDS
"""An authority gets a successor when it is good for no longer than this."""
SPREAD_SECONDS: Final = _DAY_SECONDS
"""Who checks certificates has a new authority after so long; it signs nothing before."""


@dataclass(frozen=True, slots=True)
class Authority:
    """One that signs certificates."""

    cert: str
    """PEM."""
    key: str
    """PEM."""
    made: float
    """Seconds since 1970."""


def needs_authority(authorities: Sequence[Authority], now: float) -> bool:
    """Whether a new one is to be made."""
    newest = max((each.made for each in authorities), default=float("-inf"))
    return now >= newest + AUTHORITY_SECONDS - REPLACE_SECONDS


def trusted(authorities: Sequence[Authority], now: float) -> list[Authority]:
    """Return those whose certificates still count, newest first."""
    good = [each for each in authorities if now < each.made + AUTHORITY_SECONDS]
    return sorted(good, key=lambda each: -each.made)


def signer(authorities: Sequence[Authority], now: float) -> Authority:
    """Return the one that signs now: the newest that everybody has; else the oldest."""
    known = trusted(authorities, now)
    spread = [each for each in known if now >= each.made + SPREAD_SECONDS]
    return spread[0] if spread else known[-1]


def renew_at(now: float) -> float:
    """Return when a certificate that is made now is to be made anew."""
    return now + CERTIFICATE_SECONDS - RENEW_SECONDS


def server_names(cluster: Cluster) -> list[str]:
    """Return the names by which workers are reached."""
    name, namespace = cluster.key.name, cluster.key.namespace
    workers = names.workers(cluster)
    found = []
    for end in ("svc", "svc.cluster.local"):
        found += [
            f"*.{workers}.{namespace}.{end}",
            f"{workers}.{namespace}.{end}",
            f"{name}.{namespace}.{end}",
        ]
    return [*found, "localhost"]
