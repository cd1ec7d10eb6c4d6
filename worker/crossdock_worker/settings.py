"""Every setting of a worker, once: its meaning, unit and default. Defaults fit a 2 GiB pod."""

import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from crossdock.errors import ConfigError, ProtocolError
from crossdock.store.accounting import prices_of
from crossdock.store.api import StoreOptions
from crossdock.store.layout import DEFAULT_CLUSTER
from crossdock_worker.patience import Patience
from crossdock_worker.stripes import EXTENT_BYTES, FILES

MIB: Final = 2**20
NONE: Final = "none"
ZSTD: Final = "zstd"
LAST_SECONDS: Final = 10.0
"""How long what is cut off at the end may take to give back what it holds."""
_OWN_DESCRIPTORS: Final = 64
"""Open files of a worker for itself: logs, sockets, libraries; generous."""
_PER_CONNECTION: Final = 2 + FILES
"""A socket, its duplicate in a thread, the log's files that are sent from."""
_PER_SHUFFLE: Final = 5
"""Four files; and `mmap` keeps a duplicate of the descriptor of the index."""
_MANY_DESCRIPTORS: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a worker may use. Over a limit it pushes back, and recovers when the cause is gone."""

    max_frame_bytes: int = 64 * MIB
    """Largest frame taken; a larger one is refused with 413."""
    max_inflight_bytes: int = 256 * MIB
    """Frames being received at once, by their announced length; beyond it 503."""
    max_read_bytes: int = 128 * MIB
    """Gathered answers in memory at once; further reads wait, then 503."""
    read_batch_bytes: int = 32 * MIB
    """Largest answer to one read; the reader goes on from its end."""
    places_cache_bytes: int = 64 * MIB
    """Registered places kept in memory; readers register evicted ones again."""
    max_partitions: int = 1_000_000
    """Partitions of a shuffle; statistics take some 60 bytes of memory for each."""
    max_shuffles: int = 0
    """Shuffles held at once, with five descriptors each; beyond it 503. 0: what RLIMIT_NOFILE
    leaves beside the connections."""
    max_connections: int = 1024
    """Open client connections; further ones get 503 at once."""
    threads: int = 8
    """Threads that move bytes between sockets and disk."""
    stall_seconds: float = 30.0
    """A peer that neither sends nor takes a byte for this long is cut off."""
    min_bytes_per_second: int = 64 * 1024
    """A body makes the worker wait for `stall_seconds` + its bytes / this rate, all in all."""
    disk_capacity_bytes: int = 0
    """Bytes that count as a full disk; 0: the size of the data directory's file system."""
    disk_high: float = 0.90
    """Share of the capacity above which frames are pushed back …"""
    disk_low: float = 0.85
    """… until use has fallen below this share."""
    disk_persist: float = 0.75
    """Share from which a worker with a store persists and frees what was not read for longest."""
    job_quota_bytes: int = 0
    """Bytes on this worker's disk for each job; beyond it 507. 0: no quota."""
    job_store_quota_bytes: int = 0
    """Bytes of payload that this worker brings into the store for each job. 0: no quota."""

    segment_bytes: int = 128 * MIB
    """No object in the store is larger."""
    store_uploads: int = 4
    """Segments sent to the store at once."""

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other, naming the option."""
        if not 0 < self.disk_low <= self.disk_high <= 1:
            raise ConfigError(
                f"--disk-low {self.disk_low} and --disk-high {self.disk_high} must be "
                "0 < low <= high <= 1"
            )
        if not 0 < self.disk_persist <= 1:
            raise ConfigError(f"--disk-persist {self.disk_persist} must be more than 0, at most 1")
        for name in ("max_frame_bytes", "max_inflight_bytes", "max_read_bytes",
                     "max_partitions", "max_connections", "read_batch_bytes", "threads",
                     "stall_seconds", "min_bytes_per_second", "store_uploads"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ConfigError(f"--{name.replace('_', '-')} must be more than 0")
        if self.segment_bytes < self.max_frame_bytes + MIB:
            raise ConfigError(
                f"--segment-bytes {self.segment_bytes} is less than 1 MiB more than "
                f"--max-frame-bytes {self.max_frame_bytes}: no segment could hold its pieces"
            )
        if self.max_frame_bytes > EXTENT_BYTES:
            raise ConfigError(f"--max-frame-bytes must not be more than {EXTENT_BYTES}")
        if self.max_shuffles < 0:
            raise ConfigError("--max-shuffles must not be below 0")
        if self.max_inflight_bytes < self.max_frame_bytes:
            raise ConfigError(
                f"--max-inflight-bytes {self.max_inflight_bytes} is less than one frame of "
                f"--max-frame-bytes {self.max_frame_bytes}: no such frame could ever be taken"
            )

    def shuffle_room(self, descriptors: int) -> int:
        """Return how many shuffles a process that may open so many files can hold."""
        if self.max_shuffles:
            return self.max_shuffles
        if descriptors == resource.RLIM_INFINITY:
            descriptors = _MANY_DESCRIPTORS
        spare = descriptors - _OWN_DESCRIPTORS - self.max_connections * _PER_CONNECTION
        # Few processes have all their connections at once: shuffles get half at the least.
        return max(1, spare // _PER_SHUFFLE, descriptors // (2 * _PER_SHUFFLE))

    def patience(self) -> Patience:
        """Return what a peer may make us wait for one body."""
        return Patience(self.stall_seconds, self.min_bytes_per_second)

    def check_partitions(self, partitions: int) -> None:
        """Refuse a shuffle whose statistics would take too much memory."""
        if not 1 <= partitions <= self.max_partitions:
            raise ProtocolError(
                f"{partitions} partitions are not between 1 and {self.max_partitions}",
                hint="make fewer, or raise the worker's --max-partitions",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one worker process runs."""

    data_dir: Path
    """Directory for frames and identity; one worker process each."""
    host: str = "127.0.0.1"
    port: int = 7070
    """Port to listen on; 0 takes a free one."""
    listen_fd: int | None = None
    """Descriptor of a socket that listens already; then host and port do not count."""
    advertise: str = ""
    """URL at which clients and peers reach this worker; default: made of host and port."""
    peers: tuple[str, ...] = ()
    """URLs of other workers, or dns+http(s)://NAME:PORT, resolved again and again."""
    peers_interval_seconds: float = 2.0
    """How often peers are asked for their state."""
    key_file: Path | None = None
    """Signing keys, one a line; the first signs, all verify. None only with `insecure`."""
    insecure: bool = False
    """Take every request without a token."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    """Certificate authority that peers' certificates are checked with; default: `tls_cert`."""
    store: str = ""
    """URL of the object store; "": frames stay on this disk."""
    store_options: StoreOptions = field(default_factory=StoreOptions)
    store_credentials: Path | None = None
    """A directory of files whose names are those of environment variables."""
    store_prices: str = ""
    """Dollars for 1,000 requests: WRITE,READ,DELETE; "": nothing for `file://` and `hdfs://`, else
    those of S3 Standard."""
    store_compression: str = NONE
    """What is done with segments of clients that did not compress: none, zstd."""
    store_settle_seconds: float = 30.0
    """A request to the store takes effect within this time of being sent, or never."""
    persist_after_seconds: float = 3600.0
    """Frames that are older than this are persisted; 0: age does not count."""
    eager_quiet_seconds: float = 3.0
    """A job that is `Eager` has less than a segment persisted when no frame came for so long."""
    ack_interval_seconds: float = 0.05
    """Of jobs that persist before acks: how long a frame waits for others to share a write."""
    ack_log_bytes: int = 16 * MIB
    """Frames of so many bytes wait for no more."""
    cluster: str = DEFAULT_CLUSTER
    """Uid of the cluster: two that share a store never touch each other's objects."""
    limits: Limits = field(default_factory=Limits)
    drain_grace_seconds: float = 60.0
    """How long SIGTERM waits, with a store, until nothing is here that exists nowhere else; 0: not.
    What is left stays on this disk, for the next start."""
    shutdown_grace_seconds: float = 20.0
    """How long SIGTERM waits for requests under way."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, naming the option."""
        if self.insecure == (self.key_file is not None):
            raise ConfigError(
                "a worker needs either --key-file FILE or --insecure-no-auth",
                hint="make a key with: crossdock key > shuffle.key && chmod 600 shuffle.key",
            )
        prices_of(self.store, self.store_prices)
        if self.store_compression not in {NONE, ZSTD}:
            raise ConfigError(
                f"--store-compression {self.store_compression!r} is neither {NONE} nor {ZSTD}"
            )
        if self.peers_interval_seconds <= 0:
            raise ConfigError("--peers-interval-seconds must be more than 0")
        if self.store and self.limits.disk_persist > self.limits.disk_high:
            raise ConfigError(
                f"--disk-persist {self.limits.disk_persist} is more than --disk-high "
                f"{self.limits.disk_high}: frames would be pushed back before any is persisted"
            )
        for name in ("persist_after_seconds", "eager_quiet_seconds"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{name.replace('_', '-')} must not be below 0")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key go together")

    @property
    def ending_seconds(self) -> float:
        """How long a worker may take to end after SIGTERM."""
        drain = self.drain_grace_seconds if self.store else 0.0
        return drain + self.shutdown_grace_seconds + LAST_SECONDS

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert else "http"
