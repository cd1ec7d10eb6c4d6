"""Writes files of records to sort.

    python generate.py DIRECTORY [--records N] [--files N] [--kind uniform|skewed] [--binary]

Records look like those of `gensort`: text, with a number of the record after the key and a line's
end at the end; `--binary` gives the keys all 256 values of a byte. Of skewed records, 3 in 10 have
one and the same key, 3 in 10 have one of some thousand keys, the more frequent the smaller, and
another 3 in 10 have keys that begin alike.
"""

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_CHUNK: Final = 100_000
_DIGITS: Final = np.frombuffer(b"0123456789ABCDEF", np.uint8)


def make(
    directory: Path,
    *,
    records: int,
    files: int = 1,
    kind: str = "uniform",
    binary: bool = False,
    seed: int = 0,
) -> None:
    """Write `records` records to so many files."""
    directory.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for i in range(files):
        share = range(records * i // files, records * (i + 1) // files)
        with (directory / f"records-{i:03d}").open("wb") as file:
            for first in share[::_CHUNK]:
                numbers = np.arange(first, min(first + _CHUNK, share.stop), dtype=np.uint64)
                symbols = (0, 256) if binary else (32, 127)
                keys = draw.integers(*symbols, (len(numbers), 10), np.uint8)
                if kind == "skewed":
                    skew(keys, draw, least=symbols[0])
                file.write(with_values(keys, numbers, draw).tobytes())


def skew(keys: Bytes, draw: np.random.Generator, *, least: int) -> None:
    """Replace most keys by frequent ones, and by ones that differ in few bytes."""
    which = draw.random(len(keys))
    keys[which < 0.3] = np.frombuffer(b"the heavy ", np.uint8)
    some = np.flatnonzero((which >= 0.3) & (which < 0.6))
    ranks = draw.zipf(1.3, len(some)) % 5000
    keys[some] = np.random.default_rng(1).integers(least, 127, (5000, 10), np.uint8)[ranks]
    keys[(which >= 0.6) & (which < 0.9), :7] = np.frombuffer(b"alike: ", np.uint8)


def with_values(keys: Bytes, numbers: npt.NDArray[np.uint64], draw: np.random.Generator) -> Bytes:
    """Return whole records: key, two spaces, number, two spaces, letters, a line's end."""
    made = np.full((len(keys), 100), ord(" "), np.uint8)
    made[:, :10] = keys
    shifts = np.arange(15, -1, -1, dtype=np.uint64) * np.uint64(4)
    made[:, 12:28] = ord("0")
    made[:, 28:44] = _DIGITS[((numbers[:, None] >> shifts) & np.uint64(15)).astype(np.intp)]
    letters = draw.integers(ord("A"), ord("Z") + 1, (len(keys), 13), np.uint8)
    made[:, 46:98] = np.repeat(letters, 4, axis=1)
    made[:, 98:] = np.frombuffer(b"\r\n", np.uint8)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--kind", choices=["uniform", "skewed"], default="uniform")
    parser.add_argument("--binary", action="store_true", help="keys of any bytes")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    make(
        a.directory,
        records=a.records,
        files=a.files,
        kind=a.kind,
        binary=a.binary,
        seed=a.seed,
    )


if __name__ == "__main__":
    main()
