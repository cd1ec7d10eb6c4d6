"""Memory is used again exactly when nobody refers to it any more."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from crossdock.buffers import Buffers

MIB = 2**20


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).__array_interface__["data"][0])


def test_memory_is_used_again_when_its_view_is_gone() -> None:
    buffers = Buffers(keep_bytes=8 * MIB)
    first = buffers.take(3 * MIB)
    where = address(first)
    del first
    assert address(buffers.take(2 * MIB + 1)) == where


@pytest.mark.parametrize(
    "keep",
    [
        lambda view: view[5:9],
        lambda view: np.frombuffer(view[1:], np.uint8),
        lambda view: pa.py_buffer(view).slice(3, 2),
        lambda view: view.cast("B").toreadonly(),
        lambda view: [view[i : i + 1] for i in range(3)],
    ],
    ids=["slice", "array", "arrow", "cast", "many"],
)
def test_memory_is_not_touched_while_anything_refers_to_it(
    keep: Callable[[memoryview], object],
) -> None:
    buffers = Buffers(keep_bytes=64 * MIB)
    first = buffers.take(2 * MIB)
    where = address(first)
    kept = keep(first)
    del first
    others = [buffers.take(2 * MIB) for _ in range(4)]
    assert where not in map(address, others)
    del kept
    gc.collect()
    assert address(buffers.take(2 * MIB)) == where


def test_memory_far_too_large_is_not_held_by_little_data() -> None:
    buffers = Buffers(keep_bytes=64 * MIB)
    first = buffers.take(32 * MIB)
    del first
    assert buffers.kept_bytes == 32 * MIB
    small = buffers.take(2 * MIB)
    assert len(small) == 2 * MIB
    del small
    assert buffers.kept_bytes == 2 * MIB


def test_no_more_is_kept_than_allowed_and_nothing_after_clear() -> None:
    buffers = Buffers(keep_bytes=4 * MIB)
    taken = [buffers.take(2 * MIB) for _ in range(5)]
    taken.clear()
    assert buffers.kept_bytes == 4 * MIB
    buffers.clear()
    assert buffers.kept_bytes == 0


def test_what_comes_back_after_clear_is_not_kept() -> None:
    buffers = Buffers(keep_bytes=4 * MIB)
    taken = buffers.take(2 * MIB)
    buffers.clear()
    del taken
    assert buffers.kept_bytes == 0


def test_two_threads_never_hold_the_same_memory() -> None:
    buffers = Buffers(keep_bytes=16 * MIB)

    def use(mark: int) -> bool:
        for _ in range(200):
            mine = np.frombuffer(buffers.take(MIB + mark), np.uint8)
            mine[::4096] = mark
            if not (mine[::4096] == mark).all():
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(8)))
