"""Every setting of the client, once: its meaning, unit and default."""

import os
import shlex
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crossdock.errors import ConfigError, ProtocolError
from crossdock.http import address_of
from crossdock.store.api import StoreOptions
from crossdock.store.layout import DEFAULT_CLUSTER
from crossdock.store.settings import store_options

MIB: Final = 2**20
ENV_STORE: Final = "CROSSDOCK_STORE"
ENV_STORE_OPTIONS: Final = "CROSSDOCK_STORE_OPTIONS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the client works. Defaults suit an executor with a few hundred MiB to spare."""

    frame_bytes: int = 8 * MIB
    """A frame is pushed when a worker's buffered pieces reach this size."""
    buffer_bytes: int = 64 * MIB
    """Pieces of one writer that are buffered or being pushed; `write` waits beyond it."""
    push_threads: int = 4
    """Frames that a process pushes at once."""
    read_batch_bytes: int = 24 * MIB
    """Bytes asked for in one read; up to half as many again where that saves one."""
    read_ahead_bytes: int = 64 * MIB
    """Bytes that one reader fetches ahead."""
    store: str = ""
    """URL of the workers' store, where frames are looked for that no worker has; default
    CROSSDOCK_STORE. If that is not set, workers that have a store read it for this process."""
    store_cluster: str = DEFAULT_CLUSTER
    """Uid of the cluster within the store: the workers' `--cluster`."""
    store_threads: int = 4
    """Ranges of a view in a store that are fetched at once."""
    store_hedge_seconds: float = 1.0
    """A range that brings no byte for so long, and for much longer than usual, is asked for once
    more; one in twenty at most."""
    store_cache_bytes: int = 64 * MIB
    """Records and the index of batches that are kept in memory, of the store."""
    store_settle_seconds: float = 30.0
    """A request to the store takes effect within this time of being sent, or never: the workers'
    `--store-settle-seconds`. So long the end of a job waits that has something there."""
    deadline_seconds: float = 300.0
    """How long a call rides out workers that are unavailable."""
    loss_after_seconds: float = 120.0
    """How long a worker must have been unreachable before its data counts as lost."""
    connect_seconds: float = 5.0
    """Longest wait for a connection."""
    stall_seconds: float = 30.0
    """Longest wait for the next byte of an answer."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work, naming the option."""
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not isinstance(value, str) and value <= 0:
                raise ConfigError(f"{name} must be more than 0")
        if self.buffer_bytes < self.frame_bytes:
            raise ConfigError(
                f"buffer_bytes {self.buffer_bytes} is less than one frame of {self.frame_bytes}"
            )


def endpoints_from_environment() -> list[str]:
    """Return CROSSDOCK_ENDPOINTS, URLs separated by commas."""
    return [u.strip() for u in os.environ.get("CROSSDOCK_ENDPOINTS", "").split(",") if u.strip()]


def store_options_from_environment() -> StoreOptions:
    """Return the options in CROSSDOCK_STORE_OPTIONS: NAME=VALUE, separated as a shell does it."""
    return store_options(shlex.split(os.environ.get(ENV_STORE_OPTIONS, "")))


def check_endpoints(endpoints: Sequence[str]) -> list[str]:
    """Return the URLs without a slash at the end, or raise `ConfigError`."""
    if isinstance(endpoints, str):
        raise ConfigError("endpoints is one string", hint="pass a list of URLs")
    if not endpoints:
        raise ConfigError(
            "no worker to connect to", hint="pass endpoints=, or set CROSSDOCK_ENDPOINTS"
        )
    for url in endpoints:
        try:
            address_of(url)
        except ProtocolError:
            raise ConfigError(f"endpoint {url!r} is no URL", hint="http://HOST:PORT") from None
    return [url.rstrip("/") for url in endpoints]


def token_source(token: str | None, token_file: str | os.PathLike[str] | None) -> Callable[[], str]:
    """Return what tells the current token.

    A value or a file, given or from CROSSDOCK_TOKEN or CROSSDOCK_TOKEN_FILE. A file is read
    again when it changes.
    """
    if token is not None and token_file is not None:
        raise ConfigError("token and token_file exclude each other")
    if token is not None:
        return lambda: token
    path = token_file or os.environ.get("CROSSDOCK_TOKEN_FILE")
    if path:
        return _TokenFile(Path(path))
    value = os.environ.get("CROSSDOCK_TOKEN", "")
    return lambda: value


class _TokenFile:
    """A file that is read again when it changes; the last good token holds meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._token = self._path.read_text().strip()
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            if not self._token:
                raise ConfigError(f"cannot read the token file {self._path}: {error}") from None
        return self._token


def tls_context(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext | None:
    """Return the TLS settings for a given authority, or CROSSDOCK_CA_FILE; None: the system's."""
    path = ca_file or os.environ.get("CROSSDOCK_CA_FILE")
    if not path:
        return None
    try:
        return ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot read the authority {path}: {error}") from error
