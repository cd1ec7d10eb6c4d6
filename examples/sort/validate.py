"""Says whether the files of one directory are those of another, sorted.

    python validate.py INPUT OUTPUT

Checked: that the keys of OUTPUT never fall, within a file and from each file to the next, in the
order of their names; that there are as many records as in INPUT; and that the sum over a checksum
of each record is the same. Exit code 1 and what is wrong, if something is.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import records
from records import RECORD_BYTES, Records

_CHUNK_RECORDS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Sum:
    """What a set of records has, in whatever order."""

    records: int
    checksum: int
    """Modulo 2**64."""

    def __str__(self) -> str:
        return f"{self.records} records, checksum {self.checksum:016x}"


class Unsorted(Exception):
    """A record has a smaller key than the one before."""


def chunks(directory: Path) -> Iterator[tuple[Path, int, Records]]:
    """Yield all records, by file: path, number in the file of a chunk's first record, chunk."""
    for path in sorted(p for p in directory.iterdir() if p.name[0] not in "._"):
        with path.open("rb") as file:
            first = 0
            while data := file.read(_CHUNK_RECORDS * RECORD_BYTES):
                if len(data) % RECORD_BYTES:
                    raise ValueError(f"{path} ends within a record")
                chunk = records.of_bytes(data)
                yield path, first, chunk
                first += len(chunk)


def summed(directory: Path, *, in_order: bool) -> Sum:
    """Return the sum of a directory's records.

    Args:
        directory: of files.
        in_order: whether the keys must not fall.

    Raises:
        Unsorted: they do.
    """
    count = checksum = 0
    last = np.zeros(1, records.KEY)
    for path, first, chunk in chunks(directory):
        if in_order:
            keys = np.concatenate((last, records.keys(chunk)))
            falls = np.flatnonzero(keys[1:] < keys[:-1])
            if len(falls):
                i = int(falls[0])
                raise Unsorted(f"{path}, record {first + i}: {keys[i + 1]!r} after {keys[i]!r}")
            last = keys[-1:]
        count += len(chunk)
        checksum = (checksum + records.checksum(chunk)) % 2**64
    return Sum(count, checksum)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    try:
        wanted = summed(arguments.input, in_order=False)
        found = summed(arguments.output, in_order=True)
    except (Unsorted, ValueError) as error:
        sys.exit(f"not sorted: {error}")
    if found != wanted:
        sys.exit(f"not the same records: the input has {wanted}, the output {found}")
    print(f"sorted: {found}")


if __name__ == "__main__":
    main()
