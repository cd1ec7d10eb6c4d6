"""Everything at once: two workers against a model of a few dictionaries.

A failure prints the steps, and a blob: put it above `Machine.TestCase` as the print says.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from support import options

import crossdock
from crossdock import AttemptConflict, BlocksLost, ShuffleIncomplete, View
from crossdock.wire import frame
from harness import WorkerProcess, started_workers

PARTITIONS = 4
MAPS = 3
ATTEMPTS = (0, 1, 2**64 - 1)

Pair = tuple[int, int]
Piece = tuple[int, bytes, int]
"""(partition, data, rows)"""


@dataclass(eq=False)
class Attempt:
    """What one writer has for one (map, attempt); two writers may claim the same one."""

    pair: Pair
    writer: bytes
    frames: list[list[Piece]]

    def blocks(self) -> dict[tuple[int, int], tuple[bytes, int]]:
        """Return {(partition, map): (data, rows)} of the whole attempt."""
        found: dict[tuple[int, int], tuple[bytes, int]] = {}
        for pieces in self.frames:
            for partition, data, rows in pieces:
                key = (partition, self.pair[0])
                before, n = found.get(key, (b"", 0))
                found[key] = (before + data, n + rows)
        return found


@dataclass
class Held:
    """What the model says one worker has of the shuffle."""

    frames: dict[tuple[int, int, int], Attempt] = field(default_factory=dict)
    aborted: set[Pair] = field(default_factory=set)
    known: bool = False
    """Whether the shuffle is known there for sure."""


pieces = st.lists(
    st.tuples(
        st.integers(0, PARTITIONS - 1), st.binary(max_size=12), st.sampled_from([0, 1, 2**32 - 1])
    ),
    max_size=4,
)
attempts_of_writers = st.lists(pieces, min_size=1, max_size=3)


class Machine(RuleBasedStateMachine):
    """One example is one shuffle; workers and job serve all examples."""

    workers: ClassVar[list[WorkerProcess]]
    job: ClassVar[crossdock.Job]
    ids: ClassVar[list[str]]
    names: ClassVar[Iterator[int]] = count()

    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        name = f"example-{next(self.names)}"
        self.shuffle = self.job.shuffle(name, partitions=PARTITIONS, maps=MAPS)
        self.held = [Held(), Held()]
        self.whole: dict[Pair, Attempt] = {}
        self.seen: set[Pair] = set()
        self.sealed: dict[int, int] | None = None
        self.view_ids: dict[frozenset[int], str] = {}
        self.keep: list[Attempt] = []
        self.number = count(100)
        self.view_at_hand: tuple[View, list[Attempt]] | None = None

    # -- writing ---------------------------------------------------------------------------

    @rule(
        target=attempts,
        map_id=st.integers(0, MAPS - 1),
        number=st.sampled_from(ATTEMPTS),
        frames=attempts_of_writers,
    )
    def begin(self, map_id: int, number: int, frames: list[list[Piece]]) -> Attempt:
        """Begin an attempt, speculative or not: perhaps under the number of another one."""
        ordered = [sorted(f, key=lambda piece: piece[0]) for f in frames]
        writer = next(self.number).to_bytes(16)
        made = Attempt((map_id, number), writer, ordered)
        self.keep.append(made)
        self.seen.add(made.pair)
        return made

    @rule(attempt=attempts, at=st.integers(0, 1), seq=st.integers(0, 2))
    def push(self, attempt: Attempt, at: int, seq: int) -> None:
        """Push a frame to a worker: for the first time, again, or as a second copy."""
        self._push(attempt, at, min(seq, len(attempt.frames) - 1))

    @rule(attempt=attempts, places=st.lists(st.integers(0, 1), min_size=3, max_size=3))
    def push_all(self, attempt: Attempt, places: list[int]) -> None:
        """Push every frame of an attempt somewhere, the last ones first."""
        for seq in reversed(range(len(attempt.frames))):
            self._push(attempt, places[seq], seq)

    @rule(attempt=attempts)
    def rival(self, attempt: Attempt) -> None:
        """Let another writer push the same under the same number, half of it elsewhere."""
        other = Attempt(attempt.pair, next(self.number).to_bytes(16), attempt.frames)
        self.keep.append(other)
        for seq in range(len(attempt.frames)):
            self._push((attempt, other)[seq % 2], seq % 2, seq)

    def _push(self, attempt: Attempt, at: int, seq: int) -> None:
        held, key = self.held[at], (*attempt.pair, seq)
        writers = {id(a) for known, a in held.frames.items() if known[:2] == attempt.pair}
        refused = attempt.pair in held.aborted or not writers <= {id(attempt)}
        if self._raises(AttemptConflict, lambda: self._send(attempt, at, seq)) != refused:
            raise AssertionError(f"push of {key} to worker {at}: refused should be {refused}")
        held.known = True
        if not refused:
            held.frames[key] = attempt

    def _send(self, attempt: Attempt, at: int, seq: int) -> None:
        content = attempt.frames[seq]
        parts = frame.build(
            payload=b"".join(data for _, data, _ in content),
            partition=np.array([p for p, _, _ in content], np.int64),
            length=np.array([len(data) for _, data, _ in content], np.int64),
            rows=np.array([rows for _, _, rows in content], np.int64),
            partitions=PARTITIONS,
            map_id=attempt.pair[0],
            attempt=attempt.pair[1],
            seq=seq,
            count=len(attempt.frames) if seq == len(attempt.frames) - 1 else 0,
            writer=attempt.writer,
        )
        url, target = self.workers[at].url, f"{self.shuffle.path}/frames"
        with self.job.cluster.pool.request(
            "PUT", url, target, body=parts, wait_for_continue=bool(seq % 2)
        ).check() as response:
            response.read()

    @rule(
        map_id=st.integers(0, MAPS - 1),
        frames=attempts_of_writers,
        replicas=st.integers(1, 2),
        fails=st.booleans(),
    )
    def write(self, map_id: int, frames: list[list[Piece]], replicas: int, *, fails: bool) -> None:
        """Write an attempt with the client; leave with an error, or commit."""
        made = Attempt((map_id, next(self.number)), b"", frames)
        self.seen.add(made.pair)

        def work() -> None:
            with self.shuffle.writer(
                map_id=map_id, attempt=made.pair[1], replicas=replicas
            ) as writer:
                for partition, data, rows in (piece for f in frames for piece in f):
                    writer.write(partition, data, rows=rows)
                if fails:
                    raise ZeroDivisionError

        assert self._raises(ZeroDivisionError, work) == fails
        if not fails:
            self.whole[made.pair] = made
            self.keep.append(made)

    @rule(attempt=attempts, at=st.integers(0, 1))
    def abort(self, attempt: Attempt, at: int) -> None:
        """Give up an attempt at one worker."""
        held = self.held[at]
        if not held.known:
            return
        mine = {key: a for key, a in held.frames.items() if key[:2] == attempt.pair}
        committed = any(key[2] == len(a.frames) - 1 for key, a in mine.items())
        map_id, number = attempt.pair
        target = f"{self.shuffle.path}/attempts/{map_id}/{number}"

        def work() -> None:
            with self.job.cluster.pool.call("DELETE", self.workers[at].url, target) as response:
                response.read()

        assert self._raises(AttemptConflict, work) == committed
        if mine and not committed:  # of attempts that never came nothing is written down
            held.aborted.add(attempt.pair)
            for key in mine:
                del held.frames[key]

    @staticmethod
    def _raises(kind: type[Exception], work: Callable[[], None]) -> bool:
        try:
            work()
        except kind:
            return True
        return False

    # -- what happens to workers -----------------------------------------------------------

    @rule(at=st.integers(0, 1))
    def restart(self, at: int) -> None:
        """Kill a worker and start it on the same directory."""
        self.workers[at].kill9()
        self.workers[at].start()

    # -- reading ---------------------------------------------------------------------------

    def complete(self, pair: Pair) -> Attempt | None:
        """Return the attempt that readers see under this name, if it is whole."""
        if pair in self.whole:
            return self.whole[pair]
        frames = {
            (key[2], id(a)): a
            for held in self.held
            for key, a in held.frames.items()
            if key[:2] == pair
        }
        owners = {id(a): a for a in frames.values()}
        if len(owners) != 1:
            return None
        (only,) = owners.values()
        return only if len(frames) == len(only.frames) else None

    @rule(data=st.data())
    def view(self, data: st.DataObject) -> None:
        """Make a view of some winners; perhaps some of them are not there."""
        winners: dict[int, int] = {}
        for map_id in range(MAPS):
            known = sorted(a for m, a in self.seen if m == map_id)
            number = data.draw(st.sampled_from([None, 77, *known, *known]))
            if number is not None:
                winners[map_id] = number
        found = {pair: self.complete(pair) for pair in winners.items()}
        missing = sorted(pair for pair, attempt in found.items() if attempt is None)
        if missing:
            with pytest.raises(BlocksLost) as caught:
                self.shuffle.view(winners)
            assert caught.value.attempts == missing
            return
        view = self.shuffle.view(winners)
        chosen = [attempt for attempt in found.values() if attempt is not None]
        assert view.winners == winners
        self.check(view, chosen)
        self.view_at_hand = (view, chosen)

    @rule()
    def seal(self) -> None:
        """Ask for the view without winners."""
        complete = sorted(pair for pair in self.seen if self.complete(pair) is not None)
        choice = dict(reversed(complete)) if self.sealed is None else self.sealed
        found = {pair: self.complete(pair) for pair in choice.items()}
        lost = sorted(pair for pair, attempt in found.items() if attempt is None)
        if len(choice) < MAPS:
            with pytest.raises(ShuffleIncomplete) as incomplete:
                self.shuffle.view()
            lacking = [m.map_id for m in incomplete.value.missing]
            assert lacking == sorted(set(range(MAPS)) - set(choice))
            return
        if lost:
            with pytest.raises(BlocksLost) as caught:
                self.shuffle.view()
            assert caught.value.attempts == lost
            return
        view = self.shuffle.view()
        assert view.winners == choice
        self.sealed = choice
        self.check(view, [attempt for attempt in found.values() if attempt is not None])

    def check(self, view: View, chosen: list[Attempt]) -> None:
        """Compare a view with the attempts it is made of."""
        blocks = self.blocks_of(chosen)
        assert self.read(view) == sorted(blocks.items())
        for p in range(PARTITIONS):
            mine = [value for key, value in blocks.items() if key[0] == p]
            assert int(view.bytes[p]) == sum(len(data) for data, _ in mine)
            assert int(view.rows[p]) == sum(rows for _, rows in mine)
            assert int(view.blocks[p]) == len(mine)
        sizes = view.block_sizes(range(PARTITIONS))
        assert sizes.tolist() == [
            (*key, len(data), rows) for key, (data, rows) in sorted(blocks.items())
        ]
        same = frozenset(id(attempt) for attempt in chosen)
        assert self.view_ids.setdefault(same, view.id) == view.id

    @staticmethod
    def blocks_of(chosen: list[Attempt]) -> dict[tuple[int, int], tuple[bytes, int]]:
        return {key: value for attempt in chosen for key, value in attempt.blocks().items()}

    @staticmethod
    def read(view: View, **ranges: range | None) -> list[tuple[tuple[int, int], tuple[bytes, int]]]:
        return [((b.partition, b.map_id), (bytes(b.data), b.rows)) for b in view.read(**ranges)]

    @precondition(lambda self: self.view_at_hand is not None)
    @rule(
        partitions=st.tuples(st.integers(0, PARTITIONS), st.integers(0, PARTITIONS)),
        maps=st.none() | st.tuples(st.integers(0, MAPS), st.integers(0, MAPS)),
    )
    def read_range(self, partitions: tuple[int, int], maps: tuple[int, int] | None) -> None:
        """Read a part of a view that was made before, whatever has happened since."""
        assert self.view_at_hand is not None
        view, chosen = self.view_at_hand
        if any(self.complete(attempt.pair) is not attempt for attempt in chosen):
            return
        wanted = range(min(partitions), max(partitions))
        among = None if maps is None else range(min(maps), max(maps))
        expected = {
            (p, m): value
            for (p, m), value in self.blocks_of(chosen).items()
            if p in wanted and (among is None or m in among)
        }
        assert self.read(view, partitions=wanted, maps=among) == sorted(expected.items())

    @invariant()
    def frames_are_where_they_were_acked(self) -> None:
        """Compare what each worker lists with the model, apart from the client's own writes."""
        if not any(held.known for held in self.held):
            return
        listed = self.shuffle.held(None)[0]
        for at, held in enumerate(self.held):
            table = listed.get(self.ids[at])
            found = (
                set()
                if table is None
                else {(int(f["map"]), int(f["attempt"]), int(f["seq"])) for f in table}
            )
            mine = {key for key in found if key[1] in ATTEMPTS}
            assert mine == set(held.frames)
            others = {key[:2] for key in found - mine}
            assert others <= set(self.whole), "frames of an attempt that was given up"


@pytest.fixture(scope="module", autouse=True)
def _workers() -> Iterator[None]:
    with (
        started_workers(2, peers=False) as (one, two),
        crossdock.connect(
            [one.url, two.url],
            # Small frames, so that the client's own writes have several.
            options=options(frame_bytes=16, buffer_bytes=64),
        ) as cluster,
        cluster.job(f"job-{random.getrandbits(64)}", owner="runner", lease_seconds=3600) as job,
    ):
        Machine.workers, Machine.job = [one, two], job
        by_url = {info.url: info.id for info in cluster.members().reachable.values()}
        Machine.ids = [by_url[one.url], by_url[two.url]]
        yield


TestModel = Machine.TestCase
TestModel.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    print_blob=True,
    # A failure is told at once: making it smaller takes longer than a test may.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.mark.soak
@pytest.mark.timeout(3600)
class TestModelForLong(Machine.TestCase):
    """The same with other steps each time."""

    settings = settings(
        max_examples=600, stateful_step_count=60, print_blob=True, derandomize=False
    )
