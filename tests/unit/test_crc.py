"""CRC32C against published vectors, and combinations against the checksum of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.wire import crc

VECTORS = [  # RFC 3720, B.4, and the check value of the Rocksoft model
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (b"123456789", 0xE3069283),
    (b"", 0),
]


def cut(data: bytes, lengths: list[int]) -> np.ndarray:
    """Return lengths that add up to the data's: as many of `lengths` as fit, then the rest."""
    fitting, left = [], len(data)
    for length in lengths:
        fitting.append(min(length, left))
        left -= fitting[-1]
    return np.array([*fitting, left], np.int64)


@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_known_vectors(data: bytes, expected: int) -> None:
    assert crc.extend(0, data) == expected


@given(st.binary(max_size=300), st.integers(0, 300))
def test_extend_goes_on_where_it_stopped(data: bytes, at: int) -> None:
    assert crc.extend(crc.extend(0, data[:at]), memoryview(data)[at:]) == crc.extend(0, data)


@given(st.binary(max_size=400), st.lists(st.integers(0, 40), max_size=60))
def test_pieces_combine_to_the_whole(data: bytes, lengths: list[int]) -> None:
    sizes = cut(data, lengths)
    pieces = crc.of_pieces(data, sizes)
    ends = np.cumsum(sizes).tolist()
    assert pieces.tolist() == [
        crc.extend(0, data[b - n : b]) for b, n in zip(ends, sizes.tolist(), strict=True)
    ]
    assert crc.combined(pieces, sizes) == crc.extend(0, data)


@pytest.mark.parametrize("pieces", [1, 2, 255, 256, 257, 511, 512, 513, 1000, 4099])
@pytest.mark.parametrize("same", [True, False], ids=["same", "mixed"])
def test_many_pieces_combine_to_the_whole(pieces: int, *, same: bool) -> None:
    random = np.random.default_rng(pieces)
    sizes = np.full(pieces, 7) if same else random.integers(0, 90, pieces)
    data = random.bytes(int(sizes.sum()))
    assert crc.combined(crc.of_pieces(data, sizes), sizes) == crc.extend(0, data)


def test_long_pieces_combine_to_the_whole() -> None:
    data = np.random.default_rng(1).bytes(40 * 2**20 + 5)
    sizes = np.array([0, 16 * 2**20, 1, 24 * 2**20 + 3, 1, 0])
    assert crc.combined(crc.of_pieces(data, sizes), sizes) == crc.extend(0, data)


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.uint64, np.uint16])
def test_lengths_of_any_width(dtype: type[np.integer]) -> None:
    data, sizes = b"abcdefghij", np.array([3, 0, 7], dtype)
    assert crc.combined(crc.of_pieces(data, sizes), sizes) == crc.extend(0, data)


def test_nothing_combines_to_nothing() -> None:
    none = np.empty(0, np.int64)
    assert crc.combined(crc.of_pieces(b"", none), none) == 0


@given(st.data())
def test_a_wrong_piece_changes_the_combination(data: st.DataObject) -> None:
    sizes = np.array(data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=300)))
    pieces = crc.of_pieces(bytes(int(sizes.sum())), sizes)
    whole = crc.combined(pieces, sizes)
    pieces[data.draw(st.integers(0, len(pieces) - 1))] ^= 1 << data.draw(st.integers(0, 31))
    assert crc.combined(pieces, sizes) != whole
