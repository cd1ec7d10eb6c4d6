"""Placement: contiguous ranges, even shares, and little that moves when a worker goes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock import placement

names = st.lists(st.text("abcdef0123456789", min_size=4, max_size=8), min_size=1, max_size=12,
                 unique=True)  # fmt: skip


def runs(owner: np.ndarray) -> int:
    return 1 + int((owner[1:] != owner[:-1]).sum()) if len(owner) else 0


@given(st.integers(1, 5000), names)
def test_every_partition_has_a_worker_in_few_runs(partitions: int, workers: list[str]) -> None:
    owner = placement.assign("job/words", partitions, workers)
    assert len(owner) == partitions
    assert owner.min() >= 0
    assert owner.max() < len(workers)
    assert runs(owner) <= min(partitions, 8 * len(workers))
    assert (owner == placement.assign("job/words", partitions, workers)).all()


@given(st.integers(1, 5000), names)
def test_shares_are_even(partitions: int, workers: list[str]) -> None:
    shares = np.bincount(placement.assign("k", partitions, workers), minlength=len(workers))
    ranges = min(partitions, 8 * len(workers))
    widest = -(-partitions // ranges)
    assert shares.max() <= -(-ranges // len(workers)) * widest
    if partitions >= 8 * len(workers):
        assert shares.min() >= 8 * (partitions // ranges)


@given(st.integers(100, 3000), names.filter(lambda n: len(n) > 1), st.data())
def test_the_order_of_workers_does_not_matter(
    partitions: int, workers: list[str], data: st.DataObject
) -> None:
    other = data.draw(st.permutations(workers))
    first = placement.assign("k", partitions, workers)
    second = placement.assign("k", partitions, other)
    assert [workers[i] for i in first] == [other[i] for i in second]


@given(names.filter(lambda n: len(n) > 1), st.data())
def test_ranks_of_the_others_stay_when_a_worker_goes(
    workers: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(workers))
    left = [w for w in workers if w != gone]
    assert placement.ranked("k", left) == [w for w in placement.ranked("k", workers) if w != gone]


@pytest.mark.parametrize("count", [3, 5, 9])
def test_little_moves_when_a_worker_goes(count: int) -> None:
    moved = []
    for trial in range(20):
        workers = [f"worker-{trial}-{i}" for i in range(count)]
        partitions = 720
        before = [workers[i] for i in placement.assign(f"k{trial}", partitions, workers)]
        left = workers[1:]
        after = [left[i] for i in placement.assign(f"k{trial}", partitions, left)]
        kept = [(b, a) for b, a in zip(before, after, strict=True) if b != workers[0]]
        moved.append(sum(b != a for b, a in kept) / len(kept))
    # Placed without memory (say, modulo the number of workers) 1 - 1/count of them would move.
    assert np.mean(moved) < 1 - 1.5 / count


def test_shuffles_are_placed_differently() -> None:
    workers = [f"w{i}" for i in range(6)]
    firsts = {int(placement.assign(f"shuffle-{i}", 1, workers)[0]) for i in range(100)}
    assert firsts == set(range(6))


def test_many_partitions_are_placed_quickly() -> None:
    assert len(placement.assign("k", 1_000_000, ["a", "b", "c"])) == 1_000_000


def test_weights_never_change() -> None:
    """Clients in other languages, and restarts with a newer version, must find the same homes."""
    assert placement.weight("seal/job/words/0", "alpha") == 11073596637470633946
    assert placement.weight("job/words\x000", "alpha") == 17828947564424375443
    homes = ["alpha", "beta", "gamma", "delta"]
    assert placement.ranked("seal/job/words/0", homes) == ["alpha", "gamma", "beta", "delta"]
    assert placement.assign("job/words", 6, homes[:3]).tolist() == [0, 0, 1, 2, 2, 1]
