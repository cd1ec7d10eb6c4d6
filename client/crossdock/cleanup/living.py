"""Who knows which jobs live, where that is neither the workers nor the caller.

Each is an entry point of the group `crossdock.live_jobs`: Kubernetes, which the operator's package
asks, as nothing here depends on it.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final, TypeAlias, cast

from crossdock.errors import ConfigError
from crossdock.extras import lacks

LiveJobs: TypeAlias = Callable[[str], frozenset[str]]
"""Is told a cluster's uid, and returns the uids of all jobs that may live there, and maybe of
others. Raises `CrossdockError` where it does not know them all: no list is ever short."""

KUBERNETES: Final = "kubernetes"
_GROUP: Final = "crossdock.live_jobs"
_EXTRA: Final = "operator"


def by_kubernetes() -> LiveJobs:
    """Return who asks Kubernetes, or raise `ConfigError` saying what to install."""
    for entry in entry_points(group=_GROUP, name=KUBERNETES):
        try:
            return cast("LiveJobs", entry.load())
        except ModuleNotFoundError as error:
            raise lacks("--kube", _EXTRA, error) from error
    raise ConfigError(
        "--kube: no installed package asks Kubernetes", hint=f"pip install 'crossdock[{_EXTRA}]'"
    )
