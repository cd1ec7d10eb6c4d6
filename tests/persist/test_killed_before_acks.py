"""`BeforeAck` and kill -9 at any moment: what was acked is in the store, its disk gone or not."""

import os
import random
import shutil
import threading
from pathlib import Path

import pytest

import crossdock
from crossdock.store import manifest
from crossdock.store.access import Access
from crossdock.store.frames import ALL_MAPS, StoredFrames
from crossdock.store.layout import ShuffleLayout
from crossdock.store.logs import read_record
from crossdock.store.opening import open_store
from crossdock.views import ShuffleKey
from harness import StartWorker, WorkerProcess, eventually
from raw import Peer, Target, make_frame

ROUNDS = 5
LONG_ROUNDS = 100
PARTITIONS = 6
SEED = int(os.environ.get("CROSSDOCK_SEED", "0"))
Frame = tuple[int, int]
"""(map, attempt): each is an attempt of its own, so that it is packed soon."""
Pieces = list[tuple[int, bytes]]
"""(partition, bytes) of one frame."""


class Pusher(threading.Thread):
    """Pushes frames of one map until nobody answers, and remembers what was acked."""

    def __init__(self, target: Target, map_id: int, seed: int) -> None:
        super().__init__()
        self._target = target
        self._map = map_id
        self._rng = random.Random(f"{seed} {map_id}")
        self.acked: dict[Frame, Pieces] = {}

    def run(self) -> None:
        for attempt in range(10_000):
            pieces = [
                (p, self._rng.randbytes(self._rng.randrange(1, 20_000)), 1)
                for p in sorted(self._rng.sample(range(PARTITIONS), self._rng.randint(1, 4)))
            ]
            data = make_frame(pieces, partitions=PARTITIONS, map_id=self._map, attempt=attempt)
            try:
                status = self._target.push(data).status
            except (OSError, ValueError, EOFError):  # killed
                return
            if status != 200:
                return
            self.acked[self._map, attempt] = [(p, piece) for p, piece, _ in pieces]


def in_store(url: str, key: ShuffleKey) -> dict[Frame, Pieces]:
    """Return the pieces of all frames that records name, read without any worker."""
    found: dict[Frame, Pieces] = {}
    store = open_store(url)
    access = Access.to(store, crossdock.Options())
    for info in store.list(ShuffleLayout.of("default", key).records):
        record = read_record(store, info)
        mine: dict[Frame, Pieces] = {
            (m, a): [] for m, a in record.frames[["map", "attempt"]].tolist()
        }
        made = manifest.assemble(key, record.frames, record.statistics, [record])
        for stream in StoredFrames(access, made).streams((0, PARTITIONS), ALL_MAPS):
            while not stream.ended or stream.pending:
                while stream.pending:
                    some = stream.pending.popleft()
                    c = some.columns
                    fields = (c.map_id, c.attempt, c.partition, some.starts, c.length)
                    for m, a, p, at, n in zip(*(f.tolist() for f in fields), strict=True):
                        mine[m, a].append((p, bytes(some.data[at : at + n])))
                stream.advance()
        found |= mine
    access.close()
    return found


def kill_rounds(start_worker: StartWorker, tmp_path: Path, rounds: int) -> None:
    store = tmp_path / "store"
    worker: WorkerProcess = start_worker(
        store=store.as_uri(), segment_bytes=2**20 + 2**18, max_frame_bytes=2**18,
        ack_log_bytes=2**18, eager_quiet_seconds=0.2, ack_interval_seconds=0.01,
    )  # fmt: skip
    for number in range(rounds):
        seed = SEED + number
        rng = random.Random(seed)
        print(f"round {number}: replay with CROSSDOCK_SEED={seed} and one round")
        target = Target(Peer(worker.url, ""), f"job-{seed}", "acked")
        assert target.register(persistence="BeforeAck").status == 201
        pushers = [Pusher(target, m, seed) for m in range(3)]
        for pusher in pushers:
            pusher.start()
        some = rng.randrange(1, 40)
        eventually(lambda some=some, pushers=pushers: sum(len(p.acked) for p in pushers) >= some)
        killer = threading.Timer(rng.uniform(0, 0.1), worker.kill9)
        killer.start()
        for thread in (killer, *pushers):
            thread.join()
        shutil.rmtree(worker.data_dir)
        found = in_store(store.as_uri(), ShuffleKey(target.job, "acked", 0))
        for pusher in pushers:
            for frame, pieces in pusher.acked.items():
                assert found[frame] == pieces, f"seed {seed}: frame {frame}"
        worker.start()


def test_kills_while_frames_are_acked(start_worker: StartWorker, tmp_path: Path) -> None:
    kill_rounds(start_worker, tmp_path, ROUNDS)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_kills_while_frames_are_acked(start_worker: StartWorker, tmp_path: Path) -> None:
    kill_rounds(start_worker, tmp_path, LONG_ROUNDS)
