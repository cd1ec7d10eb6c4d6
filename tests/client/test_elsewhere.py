"""What one worker refuses for reasons of its own, another one takes."""

import json
import secrets
from collections.abc import Iterator

import pytest
from support import expected, options, read, write
from tamper import Passing, Tampered, tampered

import crossdock
from crossdock import Shuffle
from harness import WorkerProcess, started_workers

FAILED = {"code": "error", "message": "the worker failed", "hint": ""}
FULL = {"code": "quota_exceeded", "message": "no room", "hint": ""}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Tampered, WorkerProcess]]:
    with started_workers(2, peers=False) as workers, tampered(workers[0].url) as proxy:
        yield proxy, workers[1]


def written_beside(
    pair: tuple[Tampered, WorkerProcess], status: int, body: dict[str, str]
) -> tuple[Shuffle, crossdock.Cluster]:
    """Write while the first worker answers every push so; return the shuffle, to be read."""
    proxy, other = pair

    def refuse(answer: Passing) -> Passing:
        if answer.method == "PUT" and answer.target.endswith("/frames"):
            return answer.but(status=status, body=json.dumps(body).encode())
        return answer

    cluster = crossdock.connect([proxy.url, other.url], options=options(deadline_seconds=5))
    job = cluster.job(f"job-{secrets.token_hex(4)}", owner="runner")
    shuffle = job.shuffle("words", partitions=16)
    with proxy.changing(refuse):
        write(shuffle, 0)
    return shuffle, cluster


@pytest.mark.parametrize(("status", "body"), [(500, FAILED), (507, FULL)])
def test_a_frame_goes_to_another_worker(
    pair: tuple[Tampered, WorkerProcess], status: int, body: dict[str, str]
) -> None:
    shuffle, cluster = written_beside(pair, status, body)
    with cluster:
        assert read(shuffle.view({0: 0})) == expected(shuffle, {0: 0})


def test_what_all_refuse_is_raised(worker: WorkerProcess, job_uid: str) -> None:
    with tampered(worker.url) as proxy, crossdock.connect(
        [proxy.url], options=options()
    ) as cluster:  # fmt: skip
        shuffle = cluster.job(job_uid, owner="runner").shuffle("words", partitions=2)

        def refuse(answer: Passing) -> Passing:
            if answer.target.endswith("/frames"):
                return answer.but(status=500, body=json.dumps(FAILED).encode())
            return answer

        with proxy.changing(refuse), pytest.raises(crossdock.CrossdockError, match="failed"):
            write(shuffle, 0)
