"""Certificates of a worker, read again when their files change: who renews them restarts nobody."""

import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from crossdock.errors import ConfigError
from crossdock_worker.settings import Settings

LOOK_SECONDS: Final = 10.0
"""Between two looks at the files."""

log = structlog.get_logger()


class Renewed:
    """A TLS context whose files are looked at now and then. Of the event loop alone."""

    def __init__(
        self, context: ssl.SSLContext, files: Sequence[Path], load: Callable[[], None]
    ) -> None:
        """Args: `load` has the context take in the files; it was called once."""
        self._context = context
        self._files = files
        self._load = load
        self._stamps = self._stamp()
        self._looked = time.monotonic()

    def context(self) -> ssl.SSLContext:
        """Return the context as the files are now, or were a moment ago."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            stamps = self._stamp()
            if stamps is not None and stamps != self._stamps:
                self._reload(stamps)
        return self._context

    def _reload(self, stamps: list[tuple[int, int]]) -> None:
        try:
            self._load()
        except (OSError, ssl.SSLError) as error:  # half written, or a slip: the old ones hold
            log.warning("certificates are not read again", error=str(error))
            return
        self._stamps = stamps
        log.info("certificates were read again", files=[str(path) for path in self._files])

    def _stamp(self) -> list[tuple[int, int]] | None:
        try:
            found = [path.stat() for path in self._files]
        except OSError:
            return None
        return [(each.st_mtime_ns, each.st_ino) for each in found]


def serving(settings: Settings) -> Renewed | None:
    """Return what a worker shows to who connects; None: it speaks plainly."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def load() -> None:
        context.load_cert_chain(cert, key)

    _first(load, "--tls-cert", cert)
    return Renewed(context, [cert, key], load)


def of_peers(settings: Settings) -> Renewed | None:
    """Return what peers are checked with; None: they speak plainly."""
    option, authority = "--tls-ca", settings.tls_ca
    if authority is None:
        option, authority = "--tls-cert", settings.tls_cert
    if authority is None:
        return None
    context, path = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), authority
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def load() -> None:  # what was trusted before stays so until the process ends
        context.load_verify_locations(cafile=path)

    _first(load, option, path)
    return Renewed(context, [path], load)


def _first(load: Callable[[], None], option: str, path: Path) -> None:
    try:
        load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot load {option} {path}: {error}") from error
