"""What the operator counts, for Prometheus. No label has the name of an object."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from crossdock_operator.calls import Call

_SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_PREFIX: Final = "crossdock_operator"


@dataclass(frozen=True, slots=True)
class Gauge:
    """Values at this moment."""

    name: str
    """Without prefix."""
    help: str
    values: Mapping[str, float]
    """By label's value; without label, of ""."""
    label: str = ""


class Metrics:
    """Counters of one operator, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            f"{_PREFIX}_api_calls",
            "Requests to the API server, by verb, resource and status; 0: no answer.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self._reconciles = Counter(
            f"{_PREFIX}_reconciles",
            "Looks at an object, by kind and outcome: done, stale (somebody was faster), failed, "
            "crashed (a fault of the operator).",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            f"{_PREFIX}_reconcile_seconds",
            "Time that a look at an object took, by kind.",
            ["kind"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._repaired = Counter(
            f"{_PREFIX}_missed_events",
            "Changes that no watch told and a list did, by kind.",
            ["kind"],
            registry=self.registry,
        )

    def called(self, call: Call, status: int) -> None:
        """Count a request to the API server; status 0: it had no answer."""
        self._calls.labels(call.verb, call.resource, str(status)).inc()

    def missed(self, kind: str, count: int) -> None:
        """Count what a list told and no watch."""
        if count:
            self._repaired.labels(kind).inc(count)

    @contextmanager
    def reconciling(self, kind: str) -> Iterator["Outcome"]:
        """Count and time what happens in the context."""
        outcome = Outcome()
        with self._seconds.labels(kind).time():
            try:
                yield outcome
            finally:
                self._reconciles.labels(kind, outcome.word).inc()

    def show(self, read: Callable[[], Iterable[Gauge]]) -> None:
        """Have these values read when somebody asks."""
        self.registry.register(_Gauges(read))


@dataclass(slots=True)
class Outcome:
    """How a look at an object ended."""

    word: str = field(default="crashed")


class _Gauges(Collector):
    def __init__(self, read: Callable[[], Iterable[Gauge]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for each in self._read():
            labels = [each.label] if each.label else []
            family = GaugeMetricFamily(f"{_PREFIX}_{each.name}", each.help, labels=labels)
            for value, number in each.values.items():
                family.add_metric([value] if labels else [], float(number))
            yield family
