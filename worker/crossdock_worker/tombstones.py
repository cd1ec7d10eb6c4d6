"""Jobs that were ended: a small file each, so that nothing of them is ever taken again.

{data_dir}/tombstones/{uid}.json    epoch, stage, when it was fenced, and what decides who cleans up
{data_dir}/ran-seconds              the clock of these times (running.py)

One that is proved to be clean is forgotten after a while; one that nobody here cleans up, and
nobody proves, after a longer one: an audit fences jobs of which no worker knows whose they were. If
a late frame or word then comes for its uid, it is a job without an owner, and goes as such.

Peers tell each other for how long a job is fenced, and the longest time holds. Else those that
learn of it when they start would tell it on as new, and workers that start again now and then would
never forget anything.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

import structlog

from crossdock.errors import CrossdockError, ProtocolError
from crossdock.lifecycle import words
from crossdock.lifecycle.facts import Facts, Stage, joined
from crossdock.lifecycle.lease import ALWAYS, Standing, silence_ends
from crossdock.records import JobRecord, Owner
from crossdock_worker.files import make_directory
from crossdock_worker.life import clock
from crossdock_worker.running import RunningTime
from crossdock_worker.trash import Trash

log = structlog.get_logger()

KEPT_SECONDS: Final = 7 * 86_400.0
"""How long the tombstone of a clean job is kept."""
UNPROVED_KEPT_SECONDS: Final = 30 * 86_400.0
"""The same of one that nobody has proved, and that is not this worker's to clean up."""
_AGE_STEP_SECONDS: Final = 3600.0
"""A peer that knows of an older fence is believed from this difference on: nothing is written for
less, as no two agree to the second."""
_MOST_AGE_SECONDS: Final = 10 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A job that was ended."""

    uid: str
    epoch: int
    stage: Stage
    record: JobRecord | None
    """Its owner, lease and grace hold; None for a job that nobody here knew."""
    fenced_at: float
    """By the running time of this disk; below 0 if peers had known of it for longer."""
    stored: bool | None = None
    """Whether this worker may have written something of it to the store; None: not known."""
    since: float = field(default_factory=clock)
    """When this process learnt of it, or would have, had it run since the fence: only who begins
    to clean up, and when, rests on it, and beginning early or twice does no harm."""

    @property
    def facts(self) -> Facts:
        """What is known of it and only grows."""
        return Facts(self.epoch, self.stage)

    @property
    def standing(self) -> Standing:
        """The job as decisions see it; of one that nobody knew, the operator's."""
        record = self.record or JobRecord(owner=Owner.CLUSTER, lease_seconds=0.0, grace_seconds=0.0)
        return Standing(
            record.owner,
            record.lease_seconds,
            record.grace_seconds,
            words.unheard(self.since),
            self.since,
            self.facts,
        )

    @property
    def kept_seconds(self) -> float:
        """How long it is kept; for ever while the reaper has to prove its end."""
        if self.stage is Stage.CLEAN:
            return KEPT_SECONDS
        return ALWAYS if silence_ends(self.standing.owner) else UNPROVED_KEPT_SECONDS

    def to_json(self) -> dict[str, object]:
        """Return what the file has."""
        record = None if self.record is None else self.record.to_json()
        return {
            "epoch": self.epoch,
            "stage": self.stage.name.lower(),
            "record": record,
            "fenced_at_ran": round(self.fenced_at, 3),
            "stored": self.stored,
        }

    @classmethod
    def read(cls, path: Path, ran: float) -> Self:
        """Read a file; one that does not read is a tombstone all the same.

        Args:
            path: of the file.
            ran: the running time of this disk.
        """
        try:
            data = json.loads(path.read_text())
            record = data.get("record")
            # Earlier versions wrote times of day: of these the time since the upgrade counts.
            fenced_at = float(data.get("fenced_at_ran", 0.0))
            return cls(
                path.stem,
                int(data["epoch"]),
                Stage[str(data.get("stage", "fenced")).upper()],
                None if record is None else JobRecord.from_json(record),
                fenced_at,
                data.get("stored"),
                clock() - max(0.0, ran - fenced_at),
            )
        except (ValueError, KeyError, TypeError, AttributeError, ProtocolError) as error:
            log.warning("tombstone is damaged", job=path.stem, problem=str(error))
            return cls(path.stem, 0, Stage.FENCED, None, ran)


class Tombstones:
    """All of a worker's. Its owner locks."""

    def __init__(self, directory: Path, trash: Trash, ran: RunningTime) -> None:
        """Read what earlier processes have left; `ran` is the running time of the disk."""
        make_directory(directory)
        self._directory = directory
        self._trash = trash
        self._ran = ran
        found = directory.glob("*.json")
        self._known = {path.stem: Tombstone.read(path, ran.now()) for path in found}

    def __contains__(self, uid: object) -> bool:
        return uid in self._known

    def __iter__(self) -> Iterator[Tombstone]:
        return iter(list(self._known.values()))

    def get(self, uid: str) -> Tombstone | None:
        """Return a job's, if it was ended."""
        return self._known.get(uid)

    def fenced_seconds(self, stone: Tombstone) -> float:
        """Return for how long a job is fenced, as far as anybody has counted."""
        return max(0.0, self._ran.now() - stone.fenced_at)

    def bury(
        self,
        uid: str,
        facts: Facts,
        record: JobRecord | None,
        *,
        stored: bool | None,
        fenced_seconds: float = 0.0,
    ) -> bool:
        """Write down, on disk first, that a job has ended; returns whether that is news.

        Args:
            uid: of the job.
            facts: what is known of it; at least that it is fenced.
            record: of the job, if it was known.
            stored: whether this worker may have written something of it to the store.
            fenced_seconds: for how long it is fenced, by who tells of it.
        """
        old = self._known.get(uid)
        fenced_at = self._ran.now() - min(fenced_seconds, _MOST_AGE_SECONDS)
        if old is None:
            new = Tombstone(uid, facts.epoch, facts.stage, record, fenced_at, stored)
        else:
            all_ = joined(old.facts, facts)
            new = replace(old, epoch=all_.epoch, stage=all_.stage, record=old.record or record)
        news = new != old
        if old is not None and old.fenced_at - fenced_at >= _AGE_STEP_SECONDS:
            new = replace(new, fenced_at=fenced_at)
        if new != old:
            self._trash.write_down(self._directory / f"{uid}.json", new.to_json())
            self._known[uid] = new
        return news

    def forget_old(self) -> list[str]:
        """Forget those that ended long ago, and are clean or nobody's; returns their uids."""
        self.keep_time()
        old = [s.uid for s in self if self.fenced_seconds(s) > s.kept_seconds]
        for uid in old:
            (self._directory / f"{uid}.json").unlink(missing_ok=True)
            del self._known[uid]
        return old

    def keep_time(self) -> None:
        """Write down for how long processes have run on this disk."""
        with suppress(CrossdockError):  # a full disk: then a restart counts less
            self._ran.keep()
