"""Many small pieces of a mapped log, copied back to back by native code."""

from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crossdock.wire.crc import I64


def gather(log: npt.NDArray[np.uint8], offsets: I64, lengths: I64) -> memoryview:
    """Return the bytes of the runs (offset, length) of `log`, in order.

    The runs, in order of place, and the gaps between them are the values of one Arrow binary
    array over the mapped file, so Arrow's `take` copies all runs in one call, without the GIL.
    """
    order = np.argsort(offsets)
    bounds = np.empty(2 * len(offsets), np.int64)
    bounds[0::2] = offsets[order]
    bounds[1::2] = bounds[0::2] + lengths[order]
    values = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(log)]
    )
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(0, len(bounds), 2)
    return cast("memoryview", memoryview(values.take(pa.array(rank)).buffers()[2]))
