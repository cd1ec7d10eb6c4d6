"""The hash of rows, many at a time. docs/protocol.md, "Hash partitioning", says it byte for byte.

Three steps: each value becomes a 64-bit *word* (`words.py`), the words of a row's keys are hashed
as a string of bytes, and the hash's upper half picks the partition. Everything is array work; the
only loops go over the words of the longest string, at most 32 of them at a time.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

NULL: Final = np.uint64(0xA0761D6478BD642F)
"""The word of a null of any type."""

SEGMENT_BYTES: Final = 256
"""Longer strings are hashed by segments, so that one long string is no long loop."""

_SEED: Final = np.uint64(0x243F6A8885A308D3)
_LENGTH: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_WORD_BYTES: Final = 8
_SEGMENT_WORDS: Final = SEGMENT_BYTES // _WORD_BYTES
_30, _27, _31, _32, _3 = (np.uint64(n) for n in (30, 27, 31, 32, 3))
_MASKS: Final = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
"""Keeps the first n bytes of a word."""


def mix(x: U64) -> U64:
    """Scramble words, in place, so that every bit of one changes every bit of the result."""
    x ^= x >> _30
    x *= _MIX_1
    x ^= x >> _27
    x *= _MIX_2
    x ^= x >> _31
    return x


def hash_words(columns: Sequence[U64]) -> U64:
    """Hash rows of words: row i is the string of bytes that `columns[0][i]`, … make."""
    if len(columns) > _SEGMENT_WORDS:
        segments = range(0, len(columns), _SEGMENT_WORDS)
        digests = [hash_words(columns[i : i + _SEGMENT_WORDS]) for i in segments]
        return mix(hash_words(digests) ^ np.uint64(_WORD_BYTES * len(columns)))
    rows = len(columns[0]) if columns else 0
    with np.errstate(over="ignore"):  # all of this is modulo 2**64
        start = _SEED + np.uint64(_WORD_BYTES * len(columns)) * _LENGTH
    state = np.full(rows, start, np.uint64)
    for column in columns:
        state ^= column
        mix(state)
    return state


def hash_strings(data: U8, offsets: I64) -> U64:
    """Hash strings of bytes that lie back to back.

    Args:
        data: the bytes.
        offsets: string i has the bytes from `offsets[i]` to `offsets[i + 1]`.
    """
    begin, end = int(offsets[0]), int(offsets[-1])
    # Two words more than needed: a word is read from two neighbours, the second may be past it.
    padded = np.zeros((end - begin) // _WORD_BYTES + 2, "<u8")
    padded.view(np.uint8)[: end - begin] = data[begin:end]
    words = padded.astype(np.uint64, copy=False)
    starts = offsets[:-1] - begin
    return _hash_spans(words, starts, offsets[1:] - offsets[:-1])


def _hash_spans(words: U64, starts: I64, lengths: I64) -> U64:
    """Hash the bytes of `words` in each span."""
    long = np.flatnonzero(lengths > SEGMENT_BYTES)
    if not len(long):
        return _hash_short(words, starts, lengths)
    short = lengths <= SEGMENT_BYTES
    hashes = np.empty(len(starts), np.uint64)
    hashes[short] = _hash_short(words, starts[short], lengths[short])
    hashes[long] = _hash_long(words, starts[long], lengths[long])
    return hashes


def _hash_long(words: U64, starts: I64, lengths: I64) -> U64:
    """Hash the segments of each span; then the string that their hashes make."""
    segments = -(-lengths // SEGMENT_BYTES)
    ends = np.cumsum(segments)
    first = ends - segments
    within = np.arange(ends[-1]) - np.repeat(first, segments)
    at = np.repeat(starts, segments) + within * SEGMENT_BYTES
    left = np.repeat(lengths, segments) - within * SEGMENT_BYTES
    digests = _hash_short(words, at, np.minimum(left, SEGMENT_BYTES))
    digests = np.append(digests, np.zeros(1, np.uint64))
    inner = _hash_spans(digests, first * _WORD_BYTES, segments * _WORD_BYTES)
    return mix(inner ^ lengths.astype(np.uint64))


def _hash_short(words: U64, starts: I64, lengths: I64) -> U64:
    """Hash spans of at most one segment, one word of all that still have one at a time."""
    state = lengths.astype(np.uint64)
    state *= _LENGTH
    state += _SEED
    steps = (lengths + (_WORD_BYTES - 1)) >> 3
    counts = np.bincount(steps, minlength=1)
    if len(counts) == 1:
        return state
    # Longest first: those that have a k-th word are a prefix then.
    order = np.argsort((len(counts) - 1 - steps).astype(np.uint8), kind="stable")
    ordered, starts, lengths = state[order], starts[order], lengths[order]
    active = len(steps) - np.cumsum(counts)
    for k, n in enumerate(active[:-1].tolist()):
        word = _load(words, starts[:n] + k * _WORD_BYTES)
        word &= _MASKS[np.minimum(lengths[:n] - k * _WORD_BYTES, _WORD_BYTES)]
        ordered[:n] ^= word
        mix(ordered[:n])
    state[order] = ordered
    return state


def _load(words: U64, at: I64) -> U64:
    """Return the 8 bytes at each place as little-endian words; two shifts, as 64 would be none."""
    index = at >> 3
    shift = (at & 7).astype(np.uint64) << _3
    low: U64 = words[index] >> shift
    high = words[index + 1] << (np.uint64(63) - shift) << np.uint64(1)
    low |= high
    return low


def partition_of(hashes: U64, partitions: int) -> npt.NDArray[np.unsignedinteger]:
    """Return the partition of each hash: its upper 32 bits scaled to P.

    The smallest unsigned type that holds P - 1: sorting by it is fastest so.
    """
    scaled = (hashes >> _32) * np.uint64(partitions)
    return (scaled >> _32).astype(np.min_scalar_type(partitions - 1))
