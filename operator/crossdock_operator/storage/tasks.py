"""What can be asked of a storekeeper, and what it answers: a JSON object a line."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Protocol

from crossdock.errors import CrossdockError
from crossdock_operator.storage.access import Access

FAILED: Final = "failed"


class TaskFailed(CrossdockError):
    """A storekeeper could not do what it was asked; the message is the error that it met."""

    code = "storage_task_failed"

    def __init__(self, message: str, *, hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        """Code of the error, such as store_unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where work is done: a cluster's store, and how its workers are reached now."""

    cluster: str
    """Its uid."""
    store: str
    options: tuple[str, ...] = ()
    settle_seconds: float = 30.0
    endpoints: tuple[str, ...] = ()
    """URLs of workers; none: none of them runs any more."""
    addresses: tuple[tuple[str, str], ...] = ()
    """Where hosts are: names of pods are not in DNS any more when their namespace goes."""
    token: str = ""
    """An administrator's."""
    authority: str = ""


def place_of(
    access: Access,
    *,
    endpoints: tuple[str, ...] = (),
    addresses: tuple[tuple[str, str], ...] = (),
    token: str = "",
) -> Place:
    """Return where a cluster's work is done."""
    return Place(
        cluster=access.cluster,
        store=access.store,
        options=access.options,
        settle_seconds=access.settle_seconds,
        endpoints=endpoints,
        addresses=addresses,
        token=token,
        authority=access.authority,
    )


class Task(Protocol):
    """Something that a storekeeper does."""

    do: ClassVar[str]
    """Its name on the wire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndJob:
    """Delete a job, up to the proof that nothing of it is left."""

    do: ClassVar[str] = "end-job"
    job: str
    """Its uid."""
    leave_store: bool = False
    """Whether only the workers are told: what is in the store may stay."""
    deadline_seconds: float = 60.0
    """Beyond what it waits for leases and for the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Find out what the credentials may do, and whether the bucket has a lifecycle rule."""

    do: ClassVar[str] = "probe"
    lifecycle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Compare the store and the workers' disks with the jobs that live; orphans go."""

    do: ClassVar[str] = "audit"
    live: tuple[str, ...]
    """Uids of all jobs that live."""
    as_of: float
    """When these were asked for: monotonic time of the machine."""
    grace_seconds: float
    delete: bool = True
    epoch: int = 0
    """Fences this operator's commands to workers."""


def to_wire(number: int, place: Place, task: Task) -> dict[str, object]:
    """Return the JSON object that asks for something."""
    arguments = asdict(task)  # type: ignore[call-overload]  # all tasks are dataclasses
    return {"id": number, "do": task.do, "place": asdict(place), "arguments": arguments}


def place_from(data: Mapping[str, Any]) -> Place:
    """Read a place."""
    addresses = tuple((host, address) for host, address in data["addresses"])
    sequences = {"options": tuple(data["options"]), "endpoints": tuple(data["endpoints"])}
    return Place(**{**data, **sequences, "addresses": addresses})


def task_from(name: str, arguments: Mapping[str, Any]) -> EndJob | Probe | Audit:
    """Read a task."""
    if name == EndJob.do:
        return EndJob(**arguments)
    if name == Probe.do:
        return Probe(**arguments)
    return Audit(**{**arguments, "live": tuple(arguments["live"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What came of `EndJob`."""

    objects: int = 0
    uploads: int = 0
    nbytes: int = 0
    requests: int = 0
    silent: tuple[str, ...] = ()
    """Workers that never answered, and cannot write any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What came of `Probe`: for each verb empty, or why it does not work."""

    problems: Mapping[str, str]
    """By verb: list, uploads, put, abort, delete."""
    lifecycle: tuple[str, ...] = ()
    """What the bucket's rules lack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What came of `Audit`."""

    orphans: int = 0
    """Objects, uploads and jobs on disks that are left."""
    orphan_bytes: int = 0
    deleted: int = 0
    store_bytes: int = 0
    """Of objects of jobs that live."""
    worker_bytes: int = 0
    """On the workers' disks."""
    unsure: int = 0
    """Things of which it is not known."""
    young: int = 0
    """Things without a job that are younger than the grace."""
    requests: int = 0
    silent: tuple[str, ...] = ()
    """Workers that did not answer."""
