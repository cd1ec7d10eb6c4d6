"""Ranges of a file: never two owners, given back and used again, mapped while it grows."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.errors import CrossdockError, Overloaded, Unavailable
from crossdock_worker.files import RangeFile, make_directory, write_atomically


@contextmanager
def range_file(directory: Path) -> Iterator[RangeFile]:
    file = RangeFile(directory / "ranges")
    try:
        yield file
    finally:
        file.close()


operations = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 50)),
        st.tuples(st.just("give back"), st.integers(0, 100)),
    ),
    max_size=80,
)


@given(operations)
def test_ranges_never_overlap(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    with range_file(tmp_path_factory.getbasetemp()) as file:
        held: list[tuple[int, int]] = []
        for step, number in steps:
            if step == "reserve":
                offset = file.reserve(number)
                mine = range(offset, offset + number)
                assert all(mine.stop <= a or a + n <= mine.start for a, n in held if n and number)
                held.append((offset, number))
            elif held:
                file.give_back(*held.pop(number % len(held)))
            assert file.used_bytes == sum(n for _, n in held)
            assert file.end >= max((a + n for a, n in held if n), default=0)
        for entry in held:
            file.give_back(*entry)
        assert (file.end, file.used_bytes) == (0, 0)


def test_space_that_came_back_is_used_first(tmp_path: Path) -> None:
    with range_file(tmp_path) as file:
        offsets = [file.reserve(100) for _ in range(4)]
        file.give_back(offsets[1], 100)
        file.give_back(offsets[2], 100)
        assert file.reserve(150) == 100
        assert file.reserve(60) == 400
        assert file.reserve(50) == 250
        assert file.end == 460


def test_mapped_bytes_survive_growth(tmp_path: Path) -> None:
    with range_file(tmp_path) as file:
        file.write(file.reserve(5), b"first")
        early = file.mapped()
        for i in range(3):
            size = 24 * 2**20
            file.write(file.reserve(size) + size - 1, bytes([i + 1]))
            assert file.mapped()[file.end - 1] == i + 1
        assert early[:5].tobytes() == file.mapped()[:5].tobytes() == b"first"
    assert early[:5].tobytes() == b"first"


def test_what_is_written_later_is_seen_through_the_map(tmp_path: Path) -> None:
    with range_file(tmp_path) as file:
        offset = file.reserve(8)
        mapped = file.mapped()
        file.write(offset, memoryview(b"payload!"))
        assert mapped[offset : offset + 8].tobytes() == b"payload!"


@pytest.mark.parametrize("end", [2**31, 2**32, 5 * 2**30])
def test_offsets_beyond_32_bits(tmp_path: Path, end: int) -> None:
    with range_file(tmp_path) as file:
        file.end = end - 3
        offset = file.reserve(6)
        file.write(offset, b"across")
        assert file.mapped()[offset : offset + 6].tobytes() == b"across"
        assert np.count_nonzero(file.mapped()[:4096]) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_pushes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with range_file(tmp_path) as file:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(Overloaded, match=r"disk full while writing .*ranges") as caught:
            file.write(0, b"x")
        assert caught.value.retry_after_seconds == 5


def test_another_disk_error_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with range_file(tmp_path) as file:
        monkeypatch.setattr(os, "pwrite", broken)
        with pytest.raises(CrossdockError, match=r"cannot write .*ranges"):
            file.write(0, b"x")


def test_short_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    with range_file(tmp_path) as file:
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:3], at))
        file.write(file.reserve(10), b"0123456789")
        assert file.mapped()[:10].tobytes() == b"0123456789"


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, Overloaded, "disk full"),
        (errno.EMFILE, Overloaded, "ulimit -n"),
        (errno.ENFILE, Overloaded, "ulimit -n"),
        (errno.EROFS, Unavailable, "read-only"),
        (errno.EIO, CrossdockError, "cannot write"),
    ],
)
def test_what_cannot_be_made_is_an_error_of_ours(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[CrossdockError],
    says: str,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    path = tmp_path / "thing"
    for make in (
        lambda: RangeFile(path),
        lambda: make_directory(path),
        lambda: write_atomically(path, b""),
    ):
        with pytest.raises(kind, match=f"{says}.*") as caught:
            make()
        assert type(caught.value) is kind
        assert str(path) in str(caught.value)
