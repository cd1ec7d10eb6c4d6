"""What an engine tells workers of its need for executors, and the operator reads from them.

An attached engine's driver says how many tasks could run; driver or executors say how many tasks
each executor has. A report holds for a while and is then forgotten, so that of a process that died
nothing stays. Any worker takes it; who wants to know asks all, and takes the newest of each
reporter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from crossdock.errors import ProtocolError
from crossdock.wire.names import U32_MAX, check_name

MOST_VALID_SECONDS: Final = 3600.0
MOST_EXECUTORS: Final = 100_000
"""That one report names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One reporter's word."""

    reporter: str
    """Replaces what the same reporter said before. Such as the name of its pod."""
    tasks: int = 0
    """Tasks of the engine that run, or could if there were executors. Of one reporter alone: those
    of several are added up."""
    busy: Mapping[str, int] = field(default_factory=dict)
    """By executor (the name of its pod): tasks that run there, or whose data is not acked yet. One
    that is named with 0 may go; one that nobody names is not known to be idle."""
    valid_seconds: float = 60.0
    """For how long it holds."""

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        return {
            "reporter": self.reporter,
            "tasks": self.tasks,
            "busy": dict(self.busy),
            "valid_seconds": self.valid_seconds,
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the JSON object, or raise `ProtocolError` naming the field."""
        if not isinstance(data, Mapping):
            raise ProtocolError("a demand is a JSON object")
        unknown = set(data) - set(cls.__dataclass_fields__)
        if unknown:
            raise ProtocolError(f"a demand has no field {min(unknown)!r}")
        busy = data.get("busy", {})
        if not isinstance(busy, Mapping) or len(busy) > MOST_EXECUTORS:
            raise ProtocolError(f"busy is an object with at most {MOST_EXECUTORS} executors")
        valid = data.get("valid_seconds", 60.0)
        if not isinstance(valid, int | float) or not 0 < valid <= MOST_VALID_SECONDS:
            raise ProtocolError(f"valid_seconds is more than 0, at most {MOST_VALID_SECONDS:g}")
        return cls(
            reporter=check_name("reporter", str(data.get("reporter", ""))),
            tasks=_count("tasks", data.get("tasks", 0)),
            busy={check_name("executor", str(e)): _count("busy", n) for e, n in busy.items()},
            valid_seconds=float(valid),
        )


@dataclass(frozen=True, slots=True)
class Reported:
    """A demand, and how long ago it came."""

    demand: Demand
    age_seconds: float

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        return {**self.demand.to_json(), "age_seconds": round(self.age_seconds, 3)}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the JSON object, or raise `ProtocolError` naming the field."""
        if not isinstance(data, Mapping):
            raise ProtocolError("a demand is a JSON object")
        age = data.get("age_seconds")
        if not isinstance(age, int | float) or not age >= 0:
            raise ProtocolError(f"age_seconds {age!r} is no age")
        rest = {name: value for name, value in data.items() if name != "age_seconds"}
        return cls(Demand.from_json(rest), float(age))


@dataclass(frozen=True, slots=True)
class Need:
    """What all reporters of a job say together."""

    tasks: int
    busy: Mapping[str, int]
    """By executor, tasks that run there or whose data is not acked yet."""


def need(reports: Iterable[Reported]) -> Need | None:
    """Return what the newest word of each reporter adds up to; None if nobody said anything.

    Args:
        reports: of all workers. Of one executor that two reporters name the higher count holds.
    """
    newest: dict[str, Reported] = {}
    for each in reports:
        if each.age_seconds > each.demand.valid_seconds:
            continue
        known = newest.get(each.demand.reporter)
        if known is None or each.age_seconds < known.age_seconds:
            newest[each.demand.reporter] = each
    if not newest:
        return None
    busy: dict[str, int] = {}
    for each in newest.values():
        for executor, count in each.demand.busy.items():
            busy[executor] = max(count, busy.get(executor, 0))
    return Need(sum(each.demand.tasks for each in newest.values()), busy)


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= U32_MAX:
        raise ProtocolError(f"{name} {value!r} is not a count")
    return value
