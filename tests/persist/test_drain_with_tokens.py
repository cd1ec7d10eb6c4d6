"""A drain where workers ask for tokens: its own opens every job at the peers."""

from pathlib import Path

from harness import KEY, connect_all, eventually, started_workers


def test_a_drain_hands_over_frames_and_seals(tmp_path: Path, job_uid: str) -> None:
    options = {
        "peers_interval_seconds": 0.1,
        "store": (tmp_path / "store").as_uri(),
        "drain_grace_seconds": 0,
    }
    with (
        started_workers(2, key=KEY, options=options) as workers,
        connect_all(workers) as cluster,
        cluster.job(job_uid, owner="runner") as job,
    ):
        shuffle = job.shuffle("words", partitions=2, maps=1)
        with shuffle.writer(map_id=0, attempt=0) as writer:
            writer.write(0, b"data")
        shuffle.view()
        for worker in workers:
            token = worker.admin_token()
            assert worker.request("POST", "/v1/drain", token=token).status in {200, 202}
            eventually(
                lambda w=worker, t=token: w.request("GET", "/v1/drain", token=t).status == 200,
                what=worker.log_text(),
            )
