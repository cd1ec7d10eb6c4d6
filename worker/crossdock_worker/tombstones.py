"""Jobs that were ended: a small file each, so that nothing of them is ever taken again.

{data_dir}/tombstones/{uid}.json    epoch, stage, when it was fenced, and what decides who cleans up

One that is proved to be clean is forgotten after a while; one that nobody here cleans up, and
nobody proves, after a longer one: an audit fences jobs of which no worker knows whose they were. If
a late frame or word then comes for its uid, it is a job without an owner, and goes as such.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

import structlog

from crossdock.errors import ProtocolError
from crossdock.lifecycle import words
from crossdock.lifecycle.facts import Facts, Stage, joined
from crossdock.lifecycle.lease import ALWAYS, Standing, silence_ends
from crossdock.records import JobRecord, Owner
from crossdock_worker.files import make_directory
from crossdock_worker.life import clock
from crossdock_worker.trash import Trash

log = structlog.get_logger()

KEPT_SECONDS: Final = 7 * 86_400.0
"""How long the tombstone of a clean job is kept, by the clock of the day."""
UNPROVED_KEPT_SECONDS: Final = 30 * 86_400.0
"""The same of one that nobody has proved, and that is not this worker's to clean up."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A job that was ended."""

    uid: str
    epoch: int
    stage: Stage
    record: JobRecord | None
    """Its owner, lease and grace hold; None for a job that nobody here knew."""
    fenced_at: float
    """Seconds since 1970."""
    stored: bool | None = None
    """Whether this worker may have written something of it to the store; None: not known."""
    since: float = field(default_factory=clock)
    """When this disk learnt of it. Over restarts by the clock of the day: only who begins to clean
    up, and when, rests on it, and beginning early or twice does no harm."""

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
            "fenced_at": self.fenced_at,
            "stored": self.stored,
        }

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; one that does not read is a tombstone all the same."""
        fenced_at = path.stat().st_mtime
        try:
            data = json.loads(path.read_text())
            record = data.get("record")
            fenced_at = float(data.get("fenced_at", fenced_at))
            return cls(
                path.stem,
                int(data["epoch"]),
                Stage[str(data.get("stage", "fenced")).upper()],
                None if record is None else JobRecord.from_json(record),
                fenced_at,
                data.get("stored"),
                clock() - max(0.0, time.time() - fenced_at),
            )
        except (ValueError, KeyError, TypeError, AttributeError, ProtocolError) as error:
            log.warning("tombstone is damaged", job=path.stem, problem=str(error))
            return cls(path.stem, 0, Stage.FENCED, None, fenced_at)


class Tombstones:
    """All of a worker's. Its owner locks."""

    def __init__(self, directory: Path, trash: Trash) -> None:
        """Read what earlier processes have left."""
        make_directory(directory)
        self._directory = directory
        self._trash = trash
        self._known = {path.stem: Tombstone.read(path) for path in directory.glob("*.json")}

    def __contains__(self, uid: object) -> bool:
        return uid in self._known

    def __iter__(self) -> Iterator[Tombstone]:
        return iter(list(self._known.values()))

    def get(self, uid: str) -> Tombstone | None:
        """Return a job's, if it was ended."""
        return self._known.get(uid)

    def bury(
        self, uid: str, facts: Facts, record: JobRecord | None, *, stored: bool | None
    ) -> bool:
        """Write down, on disk first, that a job has ended; returns whether that is news.

        Args:
            uid: of the job.
            facts: what is known of it; at least that it is fenced.
            record: of the job, if it was known.
            stored: whether this worker may have written something of it to the store.
        """
        old = self._known.get(uid)
        if old is None:
            new = Tombstone(uid, facts.epoch, facts.stage, record, time.time(), stored)
        else:
            all_ = joined(old.facts, facts)
            new = replace(old, epoch=all_.epoch, stage=all_.stage, record=old.record or record)
        if new == old:
            return False
        self._trash.write_down(self._directory / f"{uid}.json", new.to_json())
        self._known[uid] = new
        return True

    def forget_old(self) -> list[str]:
        """Forget those that ended long ago, and are clean or nobody's; returns their uids."""
        now = time.time()
        old = [s.uid for s in self if now - s.fenced_at > s.kept_seconds]
        for uid in old:
            (self._directory / f"{uid}.json").unlink(missing_ok=True)
            del self._known[uid]
        return old
