"""JSON objects that cross the wire: a job's record, a worker's description."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Final, Self

from crossdock.errors import ProtocolError
from crossdock.wire.names import U32_MAX, U64_MAX, check_name


class Owner(StrEnum):
    """Who keeps a job alive."""

    RUNNER = "runner"
    """A local runner: a process, whose silence ends the job."""
    DRIVER = "driver"
    """An engine's driver: a process, whose silence ends the job."""
    CLUSTER = "cluster"
    """The operator: its silence ends nothing."""


class Persistence(StrEnum):
    """When workers bring a job's frames into their store by themselves."""

    NEVER = "Never"
    """Only when asked to."""
    ON_PRESSURE = "OnPressure"
    """When a disk fills, or frames grow old: small, short shuffles cost no request."""
    EAGER = "Eager"
    """In the background, as soon as complete attempts make a segment, or no more frames come."""
    BEFORE_ACK = "BeforeAck"
    """Before a push is answered; later packed as with Eager."""

    @classmethod
    def parse(cls, value: object) -> "Persistence":
        """Return the policy of a name, or raise `ProtocolError`."""
        try:
            return cls(str(value))
        except ValueError:
            raise ProtocolError(
                f"persistence {value!r} is not one", hint=f"one of {', '.join(cls)}"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What a job's owner registers with every worker."""

    owner: Owner
    lease_seconds: float
    """For how long the job lives on without word from its owner."""
    grace_seconds: float
    """For how long after that its data is kept."""
    epoch: int = 0
    """Grows when another owner takes the job over; commands and frames with a lower one fail."""
    homes: tuple[str, ...] = ()
    """Ids of the workers that hold the job's seals, fixed at its first registration."""
    quota_bytes: int = 0
    """Bytes on each worker's disk; 0: the worker's own quota."""
    store_quota_bytes: int = 0
    """Bytes of payload that each worker may bring into the store; 0: the worker's own quota."""
    tenant: str = ""
    """Whose job it is, where metrics are to be added up by that."""
    persistence: Persistence = Persistence.ON_PRESSURE

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the JSON object, or raise `ProtocolError` naming the field."""
        if not isinstance(data, Mapping):
            raise ProtocolError("a job's record is a JSON object")
        unknown = set(data) - set(cls.__dataclass_fields__)
        if unknown:
            raise ProtocolError(f"a job's record has no field {min(unknown)!r}")
        try:
            owner = Owner(data.get("owner", ""))
        except ValueError:
            raise ProtocolError(
                f"owner {data.get('owner')!r} is not one", hint=f"one of {', '.join(Owner)}"
            ) from None
        homes = data.get("homes", ())
        if not isinstance(homes, list | tuple) or not all(isinstance(h, str) for h in homes):
            raise ProtocolError("homes is not a list of worker ids")
        return cls(
            owner=owner,
            lease_seconds=_number(data, "lease_seconds", 60.0),
            grace_seconds=_number(data, "grace_seconds", 300.0),
            epoch=_whole(data, "epoch"),
            homes=tuple(homes),
            quota_bytes=_whole(data, "quota_bytes"),
            store_quota_bytes=_whole(data, "store_quota_bytes"),
            tenant=_tenant(data.get("tenant", "")),
            persistence=Persistence.parse(data.get("persistence", Persistence.ON_PRESSURE)),
        )


@dataclass(frozen=True, slots=True, order=True)
class Reading:
    """A reading of a worker's clock. The owner keeps the newest of each, and brings it back."""

    worker: str
    incarnation: int
    """Of the worker: readings of different ones are of different clocks."""
    seconds: float

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the JSON object, or raise `ProtocolError` naming the field."""
        if not isinstance(data, Mapping) or not isinstance(data.get("worker"), str):
            raise ProtocolError("a reading is a JSON object with its worker")
        seconds = _number(data, "seconds", 0.0)
        return cls(str(data["worker"]), _whole(data, "incarnation"), seconds)


@dataclass(frozen=True, slots=True)
class Word:
    """What an owner says to a worker: the record, and all that it knows and only grows."""

    record: JobRecord
    as_of: Reading | None = None
    """The newest reading that this worker gave; None for none, and then no rights come of it."""
    released: Mapping[str, int] = field(default_factory=dict)
    """By shuffle, the first generation that is not released."""

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        as_of = None if self.as_of is None else self.as_of.to_json()
        return {**self.record.to_json(), "as_of": as_of, "released": dict(self.released)}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the JSON object, or raise `ProtocolError` naming the field."""
        if not isinstance(data, Mapping):
            raise ProtocolError("a job's record is a JSON object")
        rest = dict(data)
        as_of, released = rest.pop("as_of", None), rest.pop("released", None)
        return cls(
            JobRecord.from_json(rest),
            None if as_of is None else Reading.from_json(as_of),
            {} if released is None else generations_from_json(released),
        )


def generations_from_json(data: object) -> dict[str, int]:
    """Read by shuffle the first generation that something does not hold for.

    Raises `ProtocolError`.
    """
    if not isinstance(data, Mapping):
        raise ProtocolError("this is no JSON object of shuffles and generations")
    found = {check_name("shuffle", str(name)): _whole(data, name) for name in data}
    if any(generation > U32_MAX + 1 for generation in found.values()):
        raise ProtocolError("a generation is none that can be")
    return found


STAYING: Final = frozenset({"serving", "full"})
"""States of workers that are not about to go."""
DRAINED: Final = "drained"
"""State of a worker that holds nothing which exists nowhere else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """What a worker says of itself, or of a peer."""

    id: str
    """Lives in its data directory: another id at the same address means that the disk is gone."""
    incarnation: int
    """Counts the starts of this worker."""
    url: str
    state: str = "serving"
    """serving, full, draining, drained; of a peer also unreachable or gone."""
    inflight_bytes: int = 0
    disk_used: float = 0.0
    ingested_bytes: int = 0
    """Bytes of frames that it has stored since it started."""
    store: bool = False
    """Whether it has a store, and reads it for those who have none."""

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the JSON object, ignoring fields of later versions."""
        if not isinstance(data, Mapping) or not isinstance(data.get("id"), str):
            raise ProtocolError("a worker's description is a JSON object with its id")
        return cls(
            id=str(data["id"]),
            incarnation=_whole(data, "incarnation"),
            url=str(data.get("url", "")),
            state=str(data.get("state", "serving")),
            inflight_bytes=_whole(data, "inflight_bytes"),
            disk_used=_number(data, "disk_used", 0.0),
            ingested_bytes=_whole(data, "ingested_bytes"),
            store=data.get("store") is True,
        )


def _tenant(value: object) -> str:
    if not isinstance(value, str):
        raise ProtocolError(f"tenant {value!r} is no name")
    return check_name("tenant", value) if value else ""


def _number(data: Mapping[str, object], name: str, default: float) -> float:
    value = data.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= U64_MAX:
        raise ProtocolError(f"{name} {value!r} is not a number from 0 up")
    return value


def _whole(data: Mapping[str, object], name: str) -> int:
    value = _number(data, name, 0)
    if value != int(value):
        raise ProtocolError(f"{name} {value!r} is not a whole number")
    return int(value)
