"""A client process: a job's owner, or a task of it. It prints how far it is, a line for each step.

python chaos_client.py '{"role": "owner", …}'
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

from chaos_blocks import PARTITIONS, block, check

import crossdock
from crossdock.errors import CrossdockError
from crossdock.store.settings import store_options

OWNER_MARKS = (
    "connected", "registered", "written", "viewed", "persisting", "persisted", "reading",
    "releasing", "ending",
)  # fmt: skip
"""Steps of an owner, in their order."""
MAPS = 3


@dataclass(frozen=True)
class Client:
    """One process."""

    uid: str
    seed: int
    most_bytes: int
    lease_seconds: float
    grace_seconds: float
    persistence: str

    def own(self, cluster: crossdock.Cluster) -> None:
        """Do all that a job does, from its beginning to its end."""
        job = cluster.job(
            self.uid, owner="driver", persistence=self.persistence,
            lease_seconds=self.lease_seconds, grace_seconds=self.grace_seconds,
        )  # fmt: skip
        with job:
            say("registered")
            early = self.shuffle(job, "early")
            self.write(early, 0)
            early.view({0: 0}).persist()
            words = self.shuffle(job, "words")
            for m in range(MAPS):
                self.write(words, m)
            say("written")
            view = words.view(dict.fromkeys(range(MAPS), 0))
            say("viewed")
            say("persisting")
            view.persist()
            say("persisted")
            say("releasing")
            early.release()
            say("reading")
            say(f"checked {check(list(view.read()), self.seed, MAPS, self.most_bytes)}")
            say("ending")
            job.end()
            say("ended")

    def work(self, cluster: crossdock.Cluster) -> None:
        """Write attempts that never win."""
        job = cluster.job(self.uid)
        words = self.shuffle(job, "words")
        for m in range(MAPS):
            self.write(words, m, attempt=1)
            say("written")

    def shuffle(self, job: crossdock.Job, name: str) -> crossdock.Shuffle:
        return job.shuffle(name, partitions=PARTITIONS, maps=MAPS)

    def write(self, shuffle: crossdock.Shuffle, map_id: int, attempt: int = 0) -> None:
        with shuffle.writer(map_id=map_id, attempt=attempt) as writer:
            for p in range(PARTITIONS):
                data = block(self.seed, map_id, p, self.most_bytes)
                writer.write(p, data, rows=map_id + 1)


def say(mark: str) -> None:
    print(mark, flush=True)


def main(
    *,
    role: str,
    workers: list[str],
    store: str,
    options: list[str],
    settle: float,
    cluster_name: str,
    **rest: Any,
) -> None:
    """Connect, and do what the role is."""
    client = Client(**rest)
    chosen = crossdock.Options(
        frame_bytes=2**15, buffer_bytes=2**17, deadline_seconds=90, loss_after_seconds=60,
        connect_seconds=2, stall_seconds=10, store=store, store_cluster=cluster_name,
        store_settle_seconds=settle,
    )  # fmt: skip
    with crossdock.connect(workers, options=chosen, store_options=store_options(options)) as found:
        say("connected")
        if role == "owner":
            client.own(found)
        else:
            client.work(found)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    try:
        main(**given)
    except CrossdockError as error:
        sys.exit(f"{type(error).__name__}: {error}")
