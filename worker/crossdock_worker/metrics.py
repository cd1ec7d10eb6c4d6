"""What a worker counts, for Prometheus."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from crossdock.store.accounting import Requests
from crossdock_worker.accounts import Tiers

_SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


class Metrics:
    """Counters of one worker, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.frames = Counter(
            "crossdock_frames",
            "Frames pushed, by outcome: stored, duplicate, refused.",
            ["outcome"],
            registry=self.registry,
        )
        self.ingested_bytes = 0
        """Of frames stored."""
        self._ingested_bytes = Counter(
            "crossdock_ingested_bytes", "Bytes of frames stored.", registry=self.registry
        )
        self._served_bytes = Counter(
            "crossdock_served_bytes",
            "Bytes of blocks sent to readers, by where they come from: disk, store.",
            ["tier"],
            registry=self.registry,
        )
        self._served_seconds = Histogram(
            "crossdock_served_seconds",
            "Time until the bytes of an answer were at hand, by where they come from.",
            ["tier"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.served_pieces = Counter(
            "crossdock_served_pieces", "Pieces of blocks sent to readers.", registry=self.registry
        )
        self.persist_runs = Counter(
            "crossdock_persist_runs",
            "Runs that brought frames into the store, by trigger (asked, pressure, age, eager) "
            "and outcome (done, failed).",
            ["trigger", "outcome"],
            registry=self.registry,
        )
        self.persisted_bytes = Counter(
            "crossdock_persisted_bytes",
            "Bytes of payload brought into the store, by trigger.",
            ["trigger"],
            registry=self.registry,
        )
        self.freed_bytes = Counter(
            "crossdock_freed_bytes",
            "Bytes given back on this disk since the store has them.",
            registry=self.registry,
        )
        self.requests = Counter(
            "crossdock_http_requests",
            "Requests, by route and status.",
            ["route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "crossdock_http_request_seconds",
            "Time from request to answer, by route.",
            ["route"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        for tier in ("disk", "store"):
            self._served_bytes.labels(tier)
            self._served_seconds.labels(tier)

    def ingested(self, nbytes: int) -> None:
        """Count the bytes of a frame that was stored."""
        self.ingested_bytes += nbytes
        self._ingested_bytes.inc(nbytes)

    def served(self, tier: str, nbytes: int, seconds: float) -> None:
        """Count an answer with blocks.

        Args:
            tier: "disk" or "store".
            nbytes: of the answer; of this disk without the index of pieces.
            seconds: until they were at hand.
        """
        self._served_bytes.labels(tier).inc(nbytes)
        self._served_seconds.labels(tier).observe(seconds)


Gauge = tuple[str, str, float]
"""Name without prefix, help, value."""


class Gauges(Collector):
    """Values that are read when somebody asks."""

    def __init__(self, read: Callable[[], Iterable[Gauge]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, help_, value in self._read():
            yield GaugeMetricFamily(f"crossdock_{name}", help_, value=value)


class JobBytes(Collector):
    """What jobs take, and their tenants, by tier."""

    def __init__(self, read: Callable[[], tuple[dict[str, Tiers], dict[str, Tiers]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs, tenants = self._read()
        for label, help_, found in (
            ("job", "Bytes of a job, by tier: disk, freed, store.", jobs),
            ("tenant", "Bytes of all jobs of a tenant, by tier: disk, freed, store.", tenants),
        ):
            family = GaugeMetricFamily(f"crossdock_{label}_bytes", help_, labels=[label, "tier"])
            for name, used in found.items():
                for tier, nbytes in asdict(used).items():
                    family.add_metric([name, tier], nbytes)
            yield family


class StoreRequests(Collector):
    """What was asked of the store, by verb and outcome, and what it cost, estimated."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def collect(self) -> Iterator[CounterMetricFamily]:
        asked = CounterMetricFamily(
            "crossdock_store_requests",
            "Requests to the store, retries included.",
            labels=["verb", "outcome"],
        )
        sent = CounterMetricFamily("crossdock_store_sent_bytes", "Bytes of objects sent.")
        total = self._requests.total()
        for (verb, outcome), count in sorted(total.items()):
            asked.add_metric([verb, outcome], count.requests)
        sent.add_metric([], sum(count.nbytes for count in total.values()))
        dollars = CounterMetricFamily(
            "crossdock_store_dollars", "What the requests cost, estimated from above."
        )
        dollars.add_metric([], self._requests.dollars(total))
        yield from (asked, sent, dollars)
