"""What tests of persisting share: contents, readings, and damage to objects."""

import os
import random
from pathlib import Path

from crossdock import Shuffle, View
from crossdock.store.view import StoreView
from listing import files_below

Blocks = list[tuple[int, int, bytes, int]]
"""(partition, map, data, rows) in the order of reads."""


def blocks_of(view: View | StoreView, **ranges: range | None) -> Blocks:
    return [(b.partition, b.map_id, bytes(b.data), b.rows) for b in view.read(**ranges)]


def write(shuffle: Shuffle, map_id: int, attempt: int = 0, *, size: int = 20_000) -> None:
    """Write two pieces of random sizes for each partition."""
    rng = random.Random(f"{map_id} {attempt}")
    with shuffle.writer(map_id=map_id, attempt=attempt) as writer:
        for _ in range(2):
            for p in range(shuffle.partitions):
                writer.write(p, rng.randbytes(rng.randrange(size)), rows=rng.randrange(5))


def objects(directory: Path, part: str = "") -> list[Path]:
    """Return the objects of a `file://` store whose keys have `part`."""
    return [path for path in files_below(directory) if part in str(path)]


def flip_byte(path: Path, at: int) -> None:
    """Damage a file so that neither its length nor its time of change tells."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
