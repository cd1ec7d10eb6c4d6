"""One job's life as this worker knows it: when its owner was heard, and what that allows.

Decided by `crossdock.lifecycle`; here are the clock, and what one worker keeps.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from crossdock.gossip import JobAges
from crossdock.lifecycle import lease, words
from crossdock.lifecycle.facts import Facts
from crossdock.lifecycle.lease import ALWAYS, Lease, Standing, Surroundings
from crossdock.lifecycle.timing import Timing
from crossdock.lifecycle.words import Ages, Heard
from crossdock.records import JobRecord
from crossdock_worker.silence import Silence

clock = time.monotonic
"""Of all times here. Rights and silence are only ever compared with it."""

ALONE: Final = Surroundings(settled=True, answered=ALWAYS)
"""Of a worker without peers."""


@dataclass(slots=True)
class Conditions:
    """What all jobs of a worker live under."""

    timing: Timing = field(default_factory=Timing)
    around: Surroundings = ALONE
    """What is known of peers. Replaced whole, so that any thread may read it."""


@dataclass(slots=True)
class Life:
    """When a job's owner was heard. Changed on the event loop alone, read by any thread."""

    conditions: Conditions
    silence: Silence
    """What is kept of it over restarts."""
    heard: Heard
    """From the owner itself, and by peers."""
    itself: float
    """When the owner was heard here last, the job became known here, or a peer was lost."""
    since: float
    """Since when this process knows of the job."""

    @classmethod
    def begin(cls, conditions: Conditions, directory: Path) -> Self:
        """Begin to listen for a job, or go on if an earlier process did.

        Args:
            conditions: what all jobs live under.
            directory: of the job.
        """
        now, silence = clock(), Silence.read(directory / "silence")
        heard = words.unheard(now - silence.seconds)
        return cls(conditions, silence, heard, heard.perhaps, now)

    def hear_owner(self, as_of: float | None) -> None:
        """Take a word that came from the owner itself just now.

        Args:
            as_of: the reading of this process's clock that it brought back, if it did.

        Raises:
            CrossdockError: the disk does not let go of the silence that was kept. The word counts
                for nothing then, as it would after a restart.
        """
        self.silence.forget()
        now = clock()
        heard = words.direct(None if as_of is None else min(as_of, now), now)
        self.hear(heard)
        self.itself = heard.perhaps

    def take_right(self, as_of: float | None) -> None:
        """Take of an owner's word the right to write alone: silence goes on."""
        if as_of is not None:
            self.hear(Heard(min(as_of, clock()), words.NEVER))

    def hear(self, heard: Heard) -> None:
        """Take what somebody says of when the owner spoke."""
        self.heard = words.later(self.heard, heard)

    def begin_anew(self) -> None:
        """Count silence from now: somebody is lost who may have heard the owner until now."""
        self.silence.forget()
        now = clock()
        self.hear(Heard(words.NEVER, now))
        self.itself = now

    def keep_silence(self, record: JobRecord) -> bool:
        """Write down how long the owner was silent, if that is news; return whether it was.

        Raises as `files.disk_error` says.
        """
        if not lease.silence_ends(record.owner):
            return False
        kept = words.silence_to_keep(
            clock() - self.itself,
            lease_seconds=record.lease_seconds,
            grace_seconds=record.grace_seconds,
        )
        return self.silence.keep(kept)

    def put_off(self, seconds: float) -> None:
        """Count so many seconds as if they had not been: nobody is silent in them."""
        now = clock()
        surely, perhaps = self.heard
        self.heard = Heard(surely, max(perhaps, min(now, perhaps + seconds)))
        self.itself = max(self.itself, min(now, self.itself + seconds))

    def told(self, now: float) -> JobAges:
        """Return what peers are told of it."""
        ages = Ages(now - self.heard.surely, now - self.itself)
        return JobAges(ages, now - self.since)

    def standing(self, record: JobRecord, facts: Facts) -> Standing:
        """Return what decisions are made by."""
        return Standing(
            record.owner,
            record.lease_seconds,
            record.grace_seconds,
            self.heard,
            self.itself,
            facts,
        )

    def lease(self, standing: Standing) -> Lease:
        """Return what the job's lease says now."""
        conditions = self.conditions
        return lease.lease_state(standing, conditions.around, clock(), conditions.timing)

    def describe(self, standing: Standing) -> dict[str, object]:
        """Return what `GET /v1/jobs/{uid}` says of it."""
        now, since = clock(), lease.right_since(standing, self.conditions.around)
        age = round(max(0.0, now - since), 3)
        return {
            "silent_seconds": round(now - self.itself, 3),
            "lease": self.lease(standing),
            "right_age_seconds": None if age == float("inf") else age,
        }
