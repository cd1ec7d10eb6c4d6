"""What workers tell each other of jobs: `GET /v1/facts`, a page of it.

Facts only grow, so a page has the jobs of which something is new since the version that was asked
for; ages of words go with the last page, of all jobs that live.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from crossdock.errors import ProtocolError
from crossdock.lifecycle.facts import Facts, Stage
from crossdock.lifecycle.words import Ages
from crossdock.records import JobRecord, generations_from_json
from crossdock.wire.names import U64_MAX, check_name

_FORGOTTEN: Final = float("inf")


class Told(NamedTuple):
    """One job, as one worker knows it."""

    uid: str
    record: JobRecord | None
    """None for a job that was ended before this worker knew it. Of one that was ended, only owner,
    lease and grace hold."""
    introduced: bool
    """Whether only a task told of it: then the record is hearsay."""
    facts: Facts
    fenced_seconds: float = 0.0
    """For how long it is fenced, if it is; 0 from versions that do not say."""

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        live = self.facts.stage is Stage.LIVE
        return {
            **({} if live else {"fenced_seconds": _down(self.fenced_seconds)}),
            "uid": self.uid,
            "record": None if self.record is None else self.record.to_json(),
            "introduced": self.introduced,
            "epoch": self.facts.epoch,
            "stage": self.facts.stage.name.lower(),
            "released": dict(self.facts.released),
            "cleared": dict(self.facts.cleared),
            "stored": self.facts.stored,
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the JSON object, or raise `ProtocolError`."""
        if not isinstance(data, Mapping):
            raise ProtocolError("a job that is told of is a JSON object")
        record = data.get("record")
        try:
            stage = Stage[str(data.get("stage", "")).upper()]
        except KeyError:
            raise ProtocolError(f"stage {data.get('stage')!r} is not one") from None
        return cls(
            check_name("job", str(data.get("uid", ""))),
            None if record is None else JobRecord.from_json(record),
            data.get("introduced") is True,
            Facts(
                _count(data, "epoch"),
                stage,
                generations_from_json(data.get("released", {})),
                generations_from_json(data.get("cleared", {})),
                data.get("stored") is True,
            ),
            _seconds(data.get("fenced_seconds", 0.0)),
        )


class JobAges(NamedTuple):
    """How long ago things were, in seconds of the clock of who tells."""

    ages: Ages
    known: float
    """Since this process knows of the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer."""

    worker: str
    incarnation: int
    version: int
    """Ask for what is new since this one the next time."""
    more: bool
    """Whether there is more that is new already; then the ages are left out."""
    remembers_seconds: float
    """For how long it has known all words that it was told: since it began, or a peer was lost."""
    settled: bool
    """Whether it knows all facts that others rely on it to know."""
    hears: bool | None = True
    """Whether it listens to owners. One that has drained never does again: its ages are final.
    None: it is of a version that does not say."""
    gone: Sequence[str] = ()
    """Ids of workers that were declared gone."""
    jobs: Sequence[Told] = ()
    ages: Mapping[str, JobAges] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the JSON object. A right is rounded to be older, silence to be shorter."""
        return {
            "worker": self.worker,
            "incarnation": self.incarnation,
            "version": self.version,
            "more": self.more,
            "remembers_seconds": _down(self.remembers_seconds),
            "settled": self.settled,
            "hears": self.hears,
            "gone": list(self.gone),
            "jobs": [told.to_json() for told in self.jobs],
            "ages": {
                uid: [_up(ages.surely), _down(ages.itself), _down(known)]
                for uid, (ages, known) in self.ages.items()
            },
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the JSON object, ignoring fields of later versions; raises `ProtocolError`."""
        if not isinstance(data, Mapping) or not isinstance(data.get("worker"), str):
            raise ProtocolError("facts are a JSON object with its worker")
        jobs, ages, gone = (data.get(name) for name in ("jobs", "ages", "gone"))
        if not (isinstance(jobs, list) and isinstance(ages, Mapping) and isinstance(gone, list)):
            raise ProtocolError("facts lack jobs, ages or gone")
        return cls(
            worker=str(data["worker"]),
            incarnation=_count(data, "incarnation"),
            version=_count(data, "version"),
            more=data.get("more") is True,
            remembers_seconds=_seconds(data.get("remembers_seconds")),
            settled=data.get("settled") is True,
            hears=bool(data["hears"]) if "hears" in data else None,
            gone=[check_name("worker", str(each)) for each in gone],
            jobs=[Told.from_json(each) for each in jobs],
            ages={str(uid): _ages(each) for uid, each in ages.items()},
        )


def _ages(data: object) -> JobAges:
    if not isinstance(data, list) or len(data) < 3:
        raise ProtocolError("the ages of a job are three numbers")
    surely = _FORGOTTEN if data[0] is None else _seconds(data[0])
    return JobAges(Ages(surely, _seconds(data[1])), _seconds(data[2]))


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ProtocolError(f"{value!r} is no age in seconds")
    return value


def _count(data: Mapping[str, object], name: str) -> int:
    value = data.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= U64_MAX:
        raise ProtocolError(f"{name} {value!r} is not a whole number")
    return value


def _up(seconds: float) -> float | None:
    return None if seconds == _FORGOTTEN else math.ceil(seconds * 1000) / 1000


def _down(seconds: float) -> float:
    return math.floor(max(0.0, seconds) * 1000) / 1000
