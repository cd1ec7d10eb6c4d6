"""How large the partitions of a shuffle are."""

from typing import Final

import numpy as np
import numpy.typing as npt

from crossdock_operator.kinds import Object

MOST_BINS: Final = 24


def histogram(sizes: npt.NDArray[np.uint64]) -> Object:
    """Return how many partitions have which size.

    Args:
        sizes: u64[P], bytes of each partition; P ≥ 1.

    Returns:
        partitions, bytes, smallest, median and largest in bytes, and `bins`: of each `from` and
        `to` in bytes, with the sizes below `to` but in the last, where `to` is the largest, and
        how many there are as `count`.
    """
    largest, smallest = int(sizes.max()), int(sizes.min())
    count = 1 if largest == smallest else min(MOST_BINS, largest - smallest)
    edges = np.linspace(smallest, largest, count + 1)
    counts, _ = np.histogram(sizes.astype(np.float64), bins=edges if count > 1 else 1)
    return {
        "partitions": len(sizes),
        "bytes": int(sizes.sum()),
        "smallest": smallest,
        "median": int(np.median(sizes)),
        "largest": largest,
        "bins": [
            {"from": round(edges[n]), "to": round(edges[n + 1]), "count": int(counts[n])}
            for n in range(count)
        ],
    }
