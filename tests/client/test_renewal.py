"""A worker that begins anew hears the owner of a job long before its lease is renewed."""

from pathlib import Path

import crossdock
from harness import StartWorker, connect_all

LEASE_SECONDS = 3600.0
"""Renewed each ten minutes, and calls give up after these seconds."""
OPTIONS = crossdock.Options(deadline_seconds=60)


def test_who_persists_at_a_worker_that_began_anew_waits_for_no_renewal(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker(store=(tmp_path / "store").as_uri(), store_settle_seconds=0.1)
    with (
        connect_all([worker], options=OPTIONS) as cluster,
        cluster.job("job", owner="runner", lease_seconds=LEASE_SECONDS) as job,
    ):
        shuffle = job.shuffle("words", partitions=1, maps=1)
        with shuffle.writer(map_id=0, attempt=0) as writer:
            writer.write(0, b"word", rows=1)
        view = shuffle.view()
        worker.restart()
        published = view.persist()
        with crossdock.open_view(published.store, "job", "words", published.view) as stored:
            assert [bytes(block.data) for block in stored.read()] == [b"word"]
