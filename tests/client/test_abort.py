"""Giving up an attempt never costs anybody else's frames."""

import contextlib

import pytest

import crossdock


@pytest.fixture
def shuffle(two_worker_cluster: crossdock.Cluster, job_uid: str) -> crossdock.Shuffle:
    """A shuffle whose map 0 attempt 0 is committed over two workers."""
    job = two_worker_cluster.job(job_uid, owner="runner")
    shuffle = job.shuffle("rivals", partitions=16, maps=1)
    with shuffle.writer(map_id=0, attempt=0) as writer:
        for partition in range(16):
            writer.write(partition, b"x" * 1000)
    return shuffle


def test_a_second_writers_abort_leaves_the_committed_attempt(
    shuffle: crossdock.Shuffle,
) -> None:
    view = shuffle.view()
    with (  # noqa: PT012 -- the block is what fails
        pytest.raises((crossdock.AttemptConflict, RuntimeError)),
        shuffle.writer(map_id=0, attempt=0) as rival,
    ):
        for partition in range(16):
            rival.write(partition, b"y" * 1000)
        with contextlib.suppress(crossdock.AttemptConflict):
            rival.commit()
        raise RuntimeError("the task fails after its commit did")
    again = shuffle.view(winners={0: 0})
    assert again.id == view.id
    assert {bytes(b.data) for b in again.read()} == {b"x" * 1000}


def test_a_rival_that_aborts_before_its_commit_costs_nothing(
    shuffle: crossdock.Shuffle,
) -> None:
    rival = shuffle.writer(map_id=0, attempt=0)
    with contextlib.suppress(crossdock.AttemptConflict):
        for partition in range(16):
            rival.write(partition, b"y" * 1000)
            rival._flush(rival._owner_list[partition])
    rival.abort()
    assert {bytes(b.data) for b in shuffle.view().read()} == {b"x" * 1000}
