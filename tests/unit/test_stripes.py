"""Several files as one range of addresses."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock_worker import stripes
from crossdock_worker.mapping import Part, map_together
from crossdock_worker.stripes import EXTENT_BYTES, FILES, StripedFile

EDGE = EXTENT_BYTES


@contextmanager
def striped(directory: Path) -> Iterator[StripedFile]:
    file = StripedFile(directory, "payload")
    try:
        yield file
    finally:
        file.close()


@given(st.lists(st.tuples(st.integers(0, FILES - 1), st.integers(0, 5 * EDGE)), max_size=9))
def test_an_address_names_a_file_and_an_offset(places: list[tuple[int, int]]) -> None:
    addresses = [stripes.address(*each) for each in places]
    assert len(set(addresses)) == len(set(places))
    assert [stripes.place(at) for at in addresses] == places
    files, offsets = stripes.place(np.array(addresses, np.int64))
    assert list(zip(files.tolist(), offsets.tolist(), strict=True)) == places


near_edges = st.builds(
    lambda extent, off: max(0, extent * EDGE + off), st.integers(0, 4), st.integers(-3, 3)
)


@given(st.lists(st.tuples(near_edges, st.integers(0, 2 * EDGE + 2)), max_size=6))
def test_ranges_are_split_where_files_change(ranges: list[tuple[int, int]]) -> None:
    at, size = (np.array([r[i] for r in ranges], np.int64) for i in (0, 1))
    starts, lengths = stripes.split(at, size)
    pairs = list(zip(starts.tolist(), lengths.tolist(), strict=True))
    assert all(a // EDGE == (a + max(n, 1) - 1) // EDGE for a, n in pairs)
    joined: list[tuple[int, int]] = []
    for address, length in ranges:  # the parts of each are it again, in order
        left = length
        while True:
            start, part = pairs.pop(0)
            assert start == address + length - left
            left -= part
            if not left:
                break
        joined.append((address, length))
    assert (joined, pairs) == (ranges, [])


@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "end", "give back"]), st.integers(0, 50)), max_size=60
    )
)
def test_ranges_never_overlap(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    with striped(tmp_path_factory.getbasetemp()) as file:
        writing: list[int] = []
        held: list[tuple[int, int]] = []
        for number, (step, size) in enumerate(steps):
            if step == "begin":
                at = file.reserve(size)
                assert all(at + size <= a or a + n <= at for a, n in held if n and size)
                writing.append(at)
                held.append((at, size))
            elif step == "end" and writing:
                file.written(writing.pop(number % len(writing)))
            elif step == "give back" and held:
                file.give_back(*held.pop(number % len(held)))
            assert file.used_bytes == sum(n for _, n in held)


def test_one_writer_has_one_file_and_two_have_two(tmp_path: Path) -> None:
    with striped(tmp_path) as file:
        for _ in range(3):
            at = file.reserve(100)
            file.written(at)
            assert stripes.place(at)[0] == 0
        both = [file.reserve(100), file.reserve(100)]
        assert {stripes.place(at)[0] for at in both} == {0, 1}


def test_both_files_are_read_as_one(tmp_path: Path) -> None:
    with striped(tmp_path) as file:
        at = [file.reserve(4), file.reserve(4)]
        early = None
        for address, data in zip(at, (b"abcd", b"efgh"), strict=True):
            file.write(address, data)
            found = file.mapped()
            early = found if early is None else early
            assert found[address : address + 4].tobytes() == data
        file.files[0].end = 40 * 2**20  # mapped anew
        assert file.mapped()[at[1] : at[1] + 4].tobytes() == b"efgh"
        assert early is not None
        assert early[at[0] : at[0] + 4].tobytes() == b"abcd"
    assert early[at[0] : at[0] + 4].tobytes() == b"abcd", "valid when the files are closed"


def test_a_range_does_not_cross_an_extent(tmp_path: Path) -> None:
    with striped(tmp_path) as file:
        file.files[0].end = EDGE - 3
        at = file.reserve(8)
        file.written(at)
        assert stripes.place(at) == (0, EDGE)
        file.write(at, b"together")
        assert file.mapped()[at : at + 8].tobytes() == b"together"
        small = file.reserve(3)
        assert stripes.place(small) == (0, EDGE - 3), "what was left over is used"
        assert stripes.ends(np.array([at, small]), np.array([8, 3])) == (EDGE + 8, 0)


def test_what_is_restored_is_handed_out_and_the_rest_is_not(tmp_path: Path) -> None:
    with striped(tmp_path) as file:
        first, second = stripes.address(0, 100), stripes.address(1, EDGE + 50)
        file.restore(np.array([second, first]), np.array([10, 20]))
        assert [f.end for f in file.files] == [120, EDGE + 60]
        assert file.used_bytes == 30
        file.give_back(second, 10)
        assert file.used_bytes == 20


def test_space_given_back_leaves_the_disk(tmp_path: Path) -> None:
    def blocks() -> int:
        return sum(f.path.stat().st_blocks for f in file.files)

    with striped(tmp_path) as file:
        ranges = [(file.reserve(2**20), 2**20) for _ in range(2)]
        for at, size in ranges:
            file.write(at, bytes(size))
        full = blocks()
        for at, size in ranges:
            file.punch(at, size)
        assert blocks() <= full - 2 * 2**20 // 512 + 64


def test_a_map_goes_with_its_last_array(tmp_path: Path) -> None:
    def maps() -> int:
        return Path("/proc/self/maps").read_text().count(str(tmp_path))

    with (tmp_path / "one").open("w+b") as one, (tmp_path / "two").open("w+b") as two:
        for file in (one, two):
            os.ftruncate(file.fileno(), 8192)
        array = map_together(
            [Part(0, one.fileno(), 0, 4096), Part(2**20, two.fileno(), 4096, 4096)]
        )
        assert len(array) == 2**20 + 4096
        part = array[:10]
        del array
        gc.collect()
        assert maps() == 2
        assert not part.flags.writeable
        del part
        gc.collect()
        assert maps() == 0
    assert len(map_together([])) == 0
    with pytest.raises(OSError, match="Bad file"):
        map_together([Part(0, 10**6, 0, 4096)])
