"""Leave to write to the store, for one shuffle of a job: asked for before every request.

What the rules are is in `crossdock.lifecycle.lease`. A `Leave` is what `Store.stopped_by` takes, so
also what is sent again, and the bodies of long requests, end with the lease, a fence or a release.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Self

from crossdock.errors import (
    ConfigError,
    JobFenced,
    LeaseEnded,
    ShuffleReleased,
    StaleEpoch,
    Unavailable,
)
from crossdock.lifecycle import lease
from crossdock.lifecycle.facts import NOTHING_KNOWN, Facts, Stage, is_stale
from crossdock.lifecycle.lease import ALWAYS, Standing
from crossdock.lifecycle.words import Heard
from crossdock.records import Owner
from crossdock.views import ShuffleKey
from crossdock_worker.life import Conditions, clock

_LOOK_SECONDS: Final = 0.1


class Leave:
    """Of one generation of a shuffle. Thread-safe."""

    def __init__(
        self, key: ShuffleKey, standing: Callable[[], Standing], conditions: Conditions
    ) -> None:
        """Args: `standing` tells how the job stands now."""
        self.key = key
        self._standing = standing
        self._conditions = conditions
        self._lock = threading.Lock()
        self._writers = 0
        self.event = threading.Event()
        """Set for good when the job is fenced or the shuffle released: waits end."""

    @classmethod
    def always(cls, key: ShuffleKey) -> Self:
        """Return leave that never ends, for a shuffle that is nobody's job."""
        standing = Standing(
            Owner.CLUSTER, ALWAYS, ALWAYS, Heard(ALWAYS, ALWAYS), ALWAYS, NOTHING_KNOWN
        )
        return cls(key, lambda: standing, Conditions())

    def may_write(self) -> bool:
        """Whether a request that brings something into being may be sent now."""
        return self._may_write(self._standing())

    def _may_write(self, standing: Standing) -> bool:
        shuffle = self.key.name, self.key.generation
        return lease.may_write(standing, self._conditions.around, clock(), shuffle=shuffle)

    def check(self) -> None:
        """Raise why nothing may be written now, if so.

        Raises:
            JobFenced: the job was ended.
            ShuffleReleased: the shuffle was.
            LeaseEnded: the right to write is over; a word brings it back.
            Unavailable: this worker does not know yet what its peers know.
        """
        standing = self._standing()
        if not self._may_write(standing):
            self._raise(standing)

    def check_publish(self, epoch: int) -> None:
        """Raise why no record or manifest may be sent now in the name of an epoch, if so.

        Raises:
            StaleEpoch: the job was taken over.
            ConfigError: its lease is too short for ever to publish.
            LeaseEnded: too little of the lease is left for a request to take effect within it.
        """
        self.check()
        standing, conditions = self._standing(), self._conditions
        if is_stale(standing.facts, epoch):
            raise StaleEpoch(f"job {self.key.job} was taken over at epoch {standing.facts.epoch}")
        shuffle, timing = (self.key.name, self.key.generation), conditions.timing
        if lease.may_publish(
            standing, conditions.around, clock(), shuffle=shuffle, epoch=epoch, timing=timing
        ):
            return
        settle = timing.settled_after
        if standing.lease_seconds <= settle:
            raise ConfigError(
                f"job {self.key.job} has a lease of {standing.lease_seconds:g} s, and a request "
                f"to the store may take effect within {settle:g} s",
                hint="register it with a longer lease, or lower the worker's "
                "--store-settle-seconds if the store is known to be quicker",
            )
        raise LeaseEnded(
            f"less of the lease of job {self.key.job} is left than a request to the store may take"
        )

    def wait_to_publish(self, epoch: int) -> None:
        """Wait for a word if need be, up to a lease; raises as `check_publish` then."""
        until = clock() + self._standing().lease_seconds
        while True:
            try:
                self.check_publish(epoch)
            except LeaseEnded:
                if clock() > until:
                    raise
                self.event.wait(_LOOK_SECONDS)
            else:
                return

    def publishing(self, epoch: int) -> "Publishing":
        """Return leave to publish in the name of an epoch, for `Store.stopped_by`."""
        return Publishing(self, epoch)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Write within the block; who ends the shuffle waits until no block is left.

        Raises what `check` does. Once a fence or release is known nobody enters, and nobody within
        sends anything more.
        """
        with self.counted():
            self.check()
            yield

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Do what may write, within the block, if each request asks for leave by itself."""
        with self._lock:
            self._writers += 1
        try:
            yield
        finally:
            with self._lock:
                self._writers -= 1

    @property
    def is_held(self) -> bool:
        """Whether somebody is writing."""
        return self._writers > 0

    def _raise(self, standing: Standing) -> None:
        key = self.key
        if standing.facts.stage is not Stage.LIVE:
            raise JobFenced(f"job {key.job} was ended")
        if standing.facts.is_released(key.name, key.generation):
            raise ShuffleReleased(f"shuffle {key.name!r} generation {key.generation} was released")
        if not self._conditions.around.settled:
            raise Unavailable(
                "this worker began on an empty disk, and writes nothing to the store until a peer "
                "has told it which jobs were ended",
                hint="start its peers, declare those gone that never come back",
            )
        raise LeaseEnded(f"the owner of job {key.job} was not heard for its lease")


class Leaves:
    """Leave for all shuffles of a job, for which somebody asked. Thread-safe.

    Those of what is released are forgotten once nobody holds them: a job may release without end.
    Whoever asks anew gets one that is over.
    """

    def __init__(self, uid: str, standing: Callable[[], Standing], conditions: Conditions) -> None:
        """Args: `standing` tells how the job stands now."""
        self._uid = uid
        self._standing = standing
        self._conditions = conditions
        self._lock = threading.Lock()
        self._leaves: dict[str, dict[int, Leave]] = {}
        """By shuffle and generation."""

    def __len__(self) -> int:
        return sum(len(each) for each in self._leaves.values())

    def of(self, name: str, generation: int) -> Leave:
        """Return the leave for a shuffle, as it stands from now on."""
        with self._lock:
            each = self._leaves.setdefault(name, {})
            found = each.get(generation)
            if found is None:
                key = ShuffleKey(self._uid, name, generation)
                found = each[generation] = Leave(key, self._standing, self._conditions)
                self._wake(found, self._standing().facts)
            return found

    def wake(self, names: Iterable[str] | None = None) -> None:
        """End the waits of what is over.

        Args: `names` of shuffles that were released; None: the job is fenced.
        """
        facts = self._standing().facts
        with self._lock:
            for name in list(self._leaves) if names is None else names:
                for leave in self._leaves.get(name, {}).values():
                    self._wake(leave, facts)
                self._forget(name, facts)

    def are_held(self, name: str | None = None) -> bool:
        """Whether requests to the store may be under way.

        Args: `name` of a shuffle, for what was released of it; None: for all of the job.
        """
        facts = self._standing().facts
        with self._lock:
            if name is None:
                every = [leave for each in self._leaves.values() for leave in each.values()]
                return any(leave.is_held for leave in every)
            self._forget(name, facts)
            return any(facts.is_released(name, g) for g in self._leaves.get(name, ()))

    @staticmethod
    def _wake(leave: Leave, facts: Facts) -> None:
        if facts.stage is not Stage.LIVE or facts.is_released(leave.key.name, leave.key.generation):
            leave.event.set()

    def _forget(self, name: str, facts: Facts) -> None:
        """Forget what is released of a shuffle, and not held: nobody sends anything by it."""
        each = self._leaves.get(name, {})
        for generation, leave in list(each.items()):
            if facts.is_released(name, generation) and not leave.is_held:
                del each[generation]
        if not each:
            self._leaves.pop(name, None)


class Publishing:
    """Leave to publish in the name of an epoch (`crossdock.cancel.Stop`)."""

    def __init__(self, leave: Leave, epoch: int) -> None:
        """Use `Leave.publishing`."""
        self._leave = leave
        self._epoch = epoch
        self.event = leave.event

    def check(self) -> None:
        """Raise why nothing may be published now, if so."""
        self._leave.check_publish(self._epoch)
