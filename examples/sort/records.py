"""Records of 100 bytes: a key of 10 bytes, compared as unsigned bytes, and a value of 90.

Everything here works on whole arrays of records; no loop looks at a single one.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

RECORD_BYTES: Final = 100
KEY_BYTES: Final = 10

Records = npt.NDArray[np.void]
"""One element a record."""
Ids = npt.NDArray[np.intp]
Keys = npt.NDArray[np.bytes_]
"""10 bytes each. Numpy's strings lose zero bytes at their end, which changes no comparison."""

RECORD: Final = np.dtype(f"V{RECORD_BYTES}")
KEY: Final = np.dtype(f"S{KEY_BYTES}")
_PARTS: Final = np.dtype(
    {"names": ["high", "low"], "formats": [">u8", ">u2"], "offsets": [0, 8], "itemsize": 100}
)
_KEYED: Final = np.dtype({"names": ["key"], "formats": ["S10"], "offsets": [0], "itemsize": 100})
_PREFIX_BITS: Final = 32


def of_bytes(data: memoryview | bytes | bytearray) -> Records:
    """Return the records that lie back to back in a buffer, without a copy."""
    return np.frombuffer(data, RECORD)


def keys(records: Records) -> Keys:
    """Return the keys as strings, for numpy's comparisons."""
    return records.view(_KEYED)["key"]


def high(records: Records) -> npt.NDArray[np.uint64]:
    """Return the first 8 bytes of each key as a number; numbers compare as the bytes do."""
    return records.view(_PARTS)["high"].astype(np.uint64)


def low(records: Records) -> npt.NDArray[np.uint16]:
    """Return the last 2 bytes of each key as a number."""
    return records.view(_PARTS)["low"].astype(np.uint16)


def order(records: Records) -> Ids:
    """Return the indices that sort records by key; equal ones stay in their order.

    Two passes of numpy's radix sort go by the 32 leading bits in which these keys differ. With
    less than some millions of records, few that differ are equal in them: those are sorted anew.
    """
    first = high(records)
    if not len(first):
        return np.empty(0, np.intp)
    least = first.min()
    drop = max(0, int(first.max() - least).bit_length() - _PREFIX_BITS)
    prefix = ((first - least) >> np.uint64(drop)).astype(np.uint32)
    found = np.argsort(prefix.astype(np.uint16), kind="stable")
    upper = (prefix >> np.uint32(16)).astype(np.uint16)
    found = found[np.argsort(upper[found], kind="stable")]
    prefix = prefix[found]
    tied = prefix[1:] == prefix[:-1]
    if tied.any():
        members = np.zeros(len(found), bool)
        members[1:] |= tied
        members[:-1] |= tied
        places = np.flatnonzero(members)
        again = found[places]
        # Only neighbours can be equal in the prefix, so sorting all of them together moves none
        # out of its group.
        some_first, some_low = first[again], low(records[again])
        wrong = (some_first[1:] < some_first[:-1]) | (
            (some_first[1:] == some_first[:-1]) & (some_low[1:] < some_low[:-1])
        )
        if wrong.any():
            found[places] = again[np.lexsort((some_low, some_first))]
    return found


def grouped(ids: Ids) -> Ids:
    """Return the indices that bring records of the same partition together, in their order."""
    if int(ids.max(initial=0)) <= np.iinfo(np.uint16).max:
        return np.argsort(ids.astype(np.uint16), kind="stable")  # a radix sort
    return np.argsort(ids, kind="stable")


def boundaries(sample: Keys, partitions: int) -> Keys:
    """Return the `partitions` - 1 keys that cut a sample into parts of the same size.

    A key that fills several parts stands there several times.
    """
    ranked = np.sort(sample)
    if not len(ranked):
        return np.zeros(partitions - 1, KEY)
    return ranked[np.arange(1, partitions) * len(ranked) // partitions]


def partitioner(cuts: Keys) -> Callable[[Records, int], Ids]:
    """Return what says of records which partition each goes to.

    Partition i has the keys from cut i - 1 to below cut i. A key that several cuts have in common
    may be in any partition that begins with it: its records go to all of them in turn, by their
    number, so that one key that fills half of the data fills no partition.

    Returns:
        A function of records and of the number of the first of them.
    """
    first = cuts.astype("S8").astype("V8").view(">u8").astype(np.uint64)
    # Most keys are between two cuts by their first two bytes; a table is quicker than a search.
    starts = np.arange(2**16, dtype=np.uint64) << np.uint64(48)
    table = np.searchsorted(first, starts, side="left")
    unsure = table != np.searchsorted(first, starts | np.uint64(2**48 - 1), side="right")

    def of(records: Records, number: int) -> Ids:
        these = high(records)
        begins = (these >> np.uint64(48)).astype(np.intp)
        found = table[begins]
        close = np.flatnonzero(unsure[begins])
        if len(close):
            whole = keys(records[close])
            begin = np.searchsorted(cuts, whole, side="left")
            end = np.searchsorted(cuts, whole, side="right")
            turn = (close + number) % np.maximum(end - begin, 1)
            found[close] = np.where(end > begin, begin + 1 + turn, end)
        return found

    return of


def checksum(records: Records) -> int:
    """Return a sum of 64 bits over all records, whatever their order.

    The last step is not linear: two records that have exchanged parts do not go unnoticed.
    """
    words = records.view(np.uint8).reshape(-1, RECORD_BYTES).view("<u4")
    factors = np.random.default_rng(100).integers(1, 2**63, words.shape[1], np.uint64) * 2 + 1
    mixed = np.zeros(len(records), np.uint64)
    for column, factor in zip(words.T, factors, strict=True):
        mixed += (column + np.uint64(1)) * factor
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    return int(mixed.sum(dtype=np.uint64))
