"""The boto3 client: made of the settings, and anew when its credentials expired or are others."""

import threading
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

import boto3
import botocore.session
from botocore.config import Config

from crossdock.store.api import StoreOptions
from crossdock.store.renewal import renewals

if TYPE_CHECKING:
    from botocore.loaders import Loader
    from types_boto3_s3.client import S3Client

_IDLE_PROBES: Final = True
_ADDRESSING: Final[dict[bool, Literal["path", "auto"]]] = {True: "path", False: "auto"}


class ClientBox:
    """The client of the day. Thread-safe."""

    def __init__(self, options: StoreOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._renewals = 0
        """How often there were other credentials when the client was made."""

    def get(self) -> "S3Client":
        """Return the client, made at the first call: it takes tenths of a second."""
        found = renewals()
        with self._lock:
            if self._client is None or found > self._renewals:
                self._client = _make_client(self._options)
                self._renewals = found
            return self._client

    def renew(self, expired: "S3Client") -> None:
        """Forget a client whose credentials the store calls expired: the chain is asked anew.

        botocore refreshes what it knows the end of. Credentials from the environment or from a
        file have none, so whoever renews those is only noticed by a session that is new.
        """
        with self._lock:
            if self._client is expired:
                self._client = None

    def outdated(self, refused: "S3Client") -> bool:
        """Whether there are other credentials than those of a client that the store refuses."""
        found = renewals(at_once=True)
        with self._lock:
            return refused is not self._client or found > self._renewals

    def close(self) -> None:
        """Close connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


@cache
def _loader() -> "Loader":
    """Return what reads botocore's description of S3: most of the time that a client takes."""
    loader: Loader = botocore.session.Session().get_component("data_loader")
    return loader


def _make_client(options: StoreOptions) -> "S3Client":
    # A session of its own: boto3's default one is not safe to share between threads.
    core = botocore.session.Session()
    core.register_component("data_loader", _loader())
    session = boto3.session.Session(botocore_session=core, region_name=options.region or None)
    secure = not options.endpoint_url.startswith("http://")
    config = Config(
        signature_version="s3v4",
        connect_timeout=options.connect_seconds,
        read_timeout=options.stall_seconds,
        max_pool_connections=options.connections,
        tcp_keepalive=_IDLE_PROBES,
        # Each request is ours to count and to repeat: only we know which may be.
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Our CRC32C is sent as a header; any other checksum would be one more pass over the bytes.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": _ADDRESSING[options.path_style],
            # TLS and the CRC32C protect the bytes; without TLS they are signed as well.
            "payload_signing_enabled": not secure,
        },
    )
    return session.client(
        "s3",
        endpoint_url=options.endpoint_url or None,
        verify=options.ca_file or None,
        config=config,
    )
