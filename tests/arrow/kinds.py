"""Arrays of every type, for tests."""

import decimal
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

NAMES = ("us", "ns", "ms", "s")


def integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    top = 2 ** (bits - signed)
    return st.integers(-top if signed else 0, top - 1)


def decimals(digits: int, scale: int) -> st.SearchStrategy[decimal.Decimal]:
    top = 10**digits - 1
    context = decimal.Context(prec=100)
    numbers = st.integers(-top, top) | st.integers(-(10**3), 10**3)
    return numbers.map(lambda n: decimal.Decimal(n).scaleb(-scale, context))


FLAT: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.bool_(), st.booleans()),
    *((pa.type_for_alias(f"int{b}"), integers(b, signed=True)) for b in (8, 16, 32, 64)),
    *((pa.type_for_alias(f"uint{b}"), integers(b, signed=False)) for b in (8, 16, 32, 64)),
    (pa.float16(), st.floats(width=16).map(np.float16)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    (pa.decimal32(9, 2), decimals(9, 2)),
    (pa.decimal64(18, 2), decimals(18, 2)),
    (pa.decimal128(38, 2), decimals(38, 2)),
    (pa.decimal256(76, 2), decimals(76, 2)),
    (pa.date32(), integers(32, signed=True)),
    (pa.date64(), st.integers(-(2**30), 2**30).map(lambda d: d * 86_400_000)),
    (pa.time32("s"), st.integers(0, 86_399)),
    (pa.time32("ms"), st.integers(0, 86_399_999)),
    (pa.time64("us"), st.integers(0, 86_399_999_999)),
    *((pa.timestamp(unit), integers(64, signed=True)) for unit in NAMES),
    (pa.timestamp("us", "Europe/Berlin"), integers(64, signed=True)),
    *((pa.duration(unit), integers(64, signed=True)) for unit in NAMES),
    (
        pa.month_day_nano_interval(),
        st.tuples(integers(32, signed=True), integers(32, signed=True), integers(64, signed=True)),
    ),
    (pa.string(), st.text(max_size=40) | st.text(alphabet="aé\0", min_size=200, max_size=700)),
    (pa.large_string(), st.text(max_size=20)),
    (pa.string_view(), st.text(max_size=40)),
    (pa.binary(), st.binary(max_size=20) | st.binary(min_size=255, max_size=600)),
    (pa.large_binary(), st.binary(max_size=20)),
    (pa.binary_view(), st.binary(max_size=40)),
    (pa.binary(5), st.binary(min_size=5, max_size=5)),
    (pa.null(), st.none()),
]

NUMBERS_AS_STORAGE = (pa.types.is_temporal,)


def make(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Make an array; values of temporal types are the stored integers."""
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(values, width).view(kind)
    return pa.array(values, kind)


@st.composite
def flat_arrays(draw: st.DrawFn, size: int) -> pa.Array:
    kind, values = draw(st.sampled_from(FLAT))
    items = draw(st.lists(values | st.none(), min_size=size, max_size=size))
    array = make(items, kind)
    if pa.types.is_string(kind) and draw(st.booleans()):
        return array.dictionary_encode()
    if pa.types.is_integer(kind) and draw(st.booleans()):
        return pa.compute.run_end_encode(array)
    return array


@st.composite
def arrays(draw: st.DrawFn, size: int, depth: int = 2) -> pa.Array:
    """Arrays of any type and nesting, some of them slices."""
    before, after = draw(st.integers(0, 9)), draw(st.integers(0, 3))
    array = draw(_whole(before + size + after, depth))
    return array.slice(before, size)


@st.composite
def _whole(draw: st.DrawFn, size: int, depth: int) -> pa.Array:
    shape = draw(st.sampled_from(["flat", "struct", "list", "large", "view", "fixed", "map"]))
    if depth == 0 or shape == "flat":
        return draw(flat_arrays(size))
    mask = pa.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), pa.bool_())
    if shape == "struct":
        fields = [draw(arrays(size, depth - 1)) for _ in range(draw(st.integers(1, 3)))]
        names = [str(i) for i in range(len(fields))]
        return pa.StructArray.from_arrays(fields, names, mask=mask)
    if shape == "fixed":
        width = draw(st.integers(1, 3))
        values = draw(arrays(size * width, depth - 1))
        return pa.FixedSizeListArray.from_arrays(values, width, mask=mask)
    lengths = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    total = int(offsets[-1])
    if shape == "map":
        keys = pa.array([f"k{i}" for i in range(total)], pa.string())
        items = draw(arrays(total, depth - 1))
        kind = pa.map_(pa.string(), items.type)
        return pa.MapArray.from_arrays(
            pa.array(offsets, pa.int32()), keys, items, type=kind, mask=mask
        )
    values = draw(arrays(total, depth - 1))
    if shape == "view":
        starts, sizes = pa.array(offsets[:-1], pa.int32()), pa.array(lengths, pa.int32())
        return pa.ListViewArray.from_arrays(starts, sizes, values, mask=mask)
    large = shape == "large"
    typed = pa.array(offsets, pa.int64() if large else pa.int32())
    of = pa.LargeListArray if large else pa.ListArray
    return of.from_arrays(typed, values, mask=mask)
