"""What clients write, so that whoever reads can check it block by block."""

import random

from crossdock import Block

PARTITIONS = 5


def block(seed: int, map_id: int, partition: int, most_bytes: int) -> bytes:
    """Return the bytes of one block."""
    rng = random.Random(f"{seed}/{map_id}/{partition}")
    return rng.randbytes(rng.randrange(most_bytes))


def check(blocks: list[Block], seed: int, maps: int, most_bytes: int) -> int:
    """Fail unless these are all blocks once, in order and whole; return their bytes."""
    places = [(b.partition, b.map_id) for b in blocks]
    assert places == [(p, m) for p in range(PARTITIONS) for m in range(maps)], places
    for found in blocks:
        wanted = block(seed, found.map_id, found.partition, most_bytes)
        assert bytes(found.data) == wanted, f"wrong bytes in {found.partition}, {found.map_id}"
        assert found.rows == found.map_id + 1
    return sum(len(b.data) for b in blocks)
