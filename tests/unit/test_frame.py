"""The frame and the batch: what goes in comes out, what is wrong is refused, bytes never change."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.errors import FrameError, ProtocolError
from crossdock.wire import blocks, crc, frame, tables
from crossdock.wire.blocks import BatchHeader, Cursor, PieceColumns
from crossdock.wire.frame import HEADER_BYTES, Columns, FrameHeader

GOLDEN = Path(__file__).parent / "golden"
WRITER = bytes(range(16))
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)


def golden(name: str) -> bytes:
    """Return the bytes of a file of hex digits; lines with # are comments."""
    lines = (GOLDEN / name).read_text().splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))


def example() -> tuple[bytes, bytes]:
    """Return the head and the payload of the golden frame."""
    head, payload = frame.build(
        payload=b"oneTWOthree",
        partition=np.array([0, 2, 2, 4]),
        length=np.array([3, 3, 0, 5]),
        rows=np.array([1, 2, 0, 2**32 - 1]),
        partitions=5,
        map_id=7,
        attempt=2**64 - 2,
        seq=1,
        count=2,
        writer=WRITER,
        generation=3,
        epoch=9,
    )
    return head, bytes(payload)


def test_golden_frame() -> None:
    assert b"".join(example()) == golden("frame.hex")


def test_golden_frame_reads() -> None:
    data = golden("frame.hex")
    header = FrameHeader.decode(data[:HEADER_BYTES])
    assert header == FrameHeader(
        generation=3, map_id=7, attempt=2**64 - 2, seq=1, count=2, pieces=4, partitions=5,
        epoch=9, payload_bytes=11, writer=WRITER, columns_crc=header.columns_crc,
        payload_crc=crc.extend(0, b"oneTWOthree"),
    )  # fmt: skip
    columns = Columns.decode(header, data[HEADER_BYTES : HEADER_BYTES + header.columns_bytes])
    assert columns.partition.tolist() == [0, 2, 2, 4]
    assert columns.length.tolist() == [3, 3, 0, 5]
    assert columns.rows.tolist() == [1, 2, 0, 2**32 - 1]
    assert columns.ends.tolist() == [3, 6, 6, 11]
    assert header.last
    assert header.frame_bytes == len(data)


def golden_columns() -> PieceColumns:
    def u32(*values: int) -> np.ndarray:
        return np.array(values, np.uint32)

    payload = [b"one", b"", b"three"]
    return PieceColumns(
        partition=u32(1, 1, 2**32 - 1), map_id=u32(0, 5, 5),
        attempt=np.array([0, 2**64 - 1, 2**64 - 1], np.uint64), seq=u32(0, 0, 3),
        position=u32(4, 0, 9), length=u32(3, 0, 5), rows=u32(1, 0, 8),
        crc=u32(*(crc.extend(0, p) for p in payload)),
    )  # fmt: skip


def test_golden_batch() -> None:
    head = blocks.encode_head(golden_columns(), end=True, skip=2)
    assert head + b"ethree" == golden("batch.hex")  # "one", less the two bytes to skip


def test_golden_batch_reads() -> None:
    data = golden("batch.hex")
    header = BatchHeader.decode(data[: blocks.HEADER_BYTES])
    assert (header.end, header.pieces, header.skip, header.payload_bytes) == (True, 3, 2, 8)
    index = data[blocks.HEADER_BYTES : blocks.HEADER_BYTES + 3 * blocks.COLUMN_BYTES]
    assert crc.extend(0, index) == header.columns_crc
    columns, expected = PieceColumns.decode(3, index), golden_columns()
    for name in PieceColumns.__slots__:
        assert getattr(columns, name).tolist() == getattr(expected, name).tolist(), name
    assert columns.ends.tolist() == [3, 3, 8]
    assert columns.cursor_behind(2) == Cursor(2**32 - 1, 5, 2**64 - 1, 3, 10)
    taken = columns.take(slice(1, 3))
    assert (taken.map_id.tolist(), taken.length.tolist()) == ([5, 5], [0, 5])


def test_sizes_of_what_crosses_the_wire() -> None:
    assert (HEADER_BYTES, blocks.HEADER_BYTES) == (88, 64)
    sizes = {t: getattr(tables, t).itemsize for t in ("ATTEMPT", "FRAME_KEY", "FRAME", "BLOCK")}
    assert sizes == {"ATTEMPT": 12, "FRAME_KEY": 16, "FRAME": 64, "BLOCK": 24}
    assert tables.STATISTICS.itemsize == 20


@st.composite
def headers(draw: st.DrawFn) -> FrameHeader:
    seq = draw(st.integers(0, 2**32 - 2))
    return FrameHeader(
        generation=draw(U32), map_id=draw(U32), attempt=draw(U64), seq=seq,
        count=seq + 1 if draw(st.booleans()) else 0, pieces=draw(U32),
        partitions=draw(st.integers(1, 2**32 - 1)), epoch=draw(U64),
        payload_bytes=draw(U32), writer=draw(st.binary(min_size=16, max_size=16)),
        columns_crc=draw(U32), payload_crc=draw(U32),
    )  # fmt: skip


@given(headers())
def test_header_round_trip(header: FrameHeader) -> None:
    data = header.encode()
    assert len(data) == HEADER_BYTES
    assert FrameHeader.decode(data) == header
    assert FrameHeader.decode(memoryview(bytearray(data + b"more"))) == header


@given(
    st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=30), U32), max_size=400),
)
def test_frame_round_trip(pieces: list[tuple[int, bytes, int]]) -> None:
    pieces.sort(key=lambda p: p[0])
    head, payload = frame.build(
        payload=b"".join(p[1] for p in pieces),
        partition=np.array([p[0] for p in pieces], np.int64),
        length=np.array([len(p[1]) for p in pieces], np.int64),
        rows=np.array([p[2] for p in pieces], np.int64),
        partitions=10, map_id=1, attempt=2, seq=0, writer=WRITER,
    )  # fmt: skip
    header = FrameHeader.decode(head)
    columns = Columns.decode(header, head[HEADER_BYTES:])
    assert header.frame_bytes == len(head) + len(payload)
    assert header.payload_crc == crc.extend(0, payload)
    assert not header.last
    ends = columns.ends.tolist()
    found = zip(columns.partition.tolist(), ends, columns.length.tolist(), strict=True)
    assert [(p, bytes(payload[b - n : b])) for p, b, n in found] == [p[:2] for p in pieces]
    assert columns.rows.tolist() == [p[2] for p in pieces]
    assert columns.encoded == head[HEADER_BYTES:]


def sealed(data: bytes) -> bytes:
    """Return a header with its checksum set right."""
    return data[:-4] + struct.pack("<I", crc.extend(0, data[:-4]))


def test_every_flipped_bit_of_the_head_is_refused() -> None:
    head, _ = example()
    for bit in range(8 * len(head)):
        damaged = bytearray(head)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError):
            Columns.decode(FrameHeader.decode(damaged), bytes(damaged[HEADER_BYTES:]))


@pytest.mark.parametrize("length", range(HEADER_BYTES))
def test_a_short_header_is_refused(length: int) -> None:
    with pytest.raises(FrameError, match="ends inside its header"):
        FrameHeader.decode(example()[0][:length])


WRONG = [
    ("magic", 0, b"XDF2", "not a frame"),
    ("unknown flag", 4, struct.pack("<I", 3), "flags 0x3"),
    ("last without count", 20, struct.pack("<I", 0), "contradicts"),
    ("count without last", 4, struct.pack("<I", 0), "contradicts"),
    ("seq is not the last", 16, struct.pack("<I", 0), "contradicts"),
    ("no partitions", 28, struct.pack("<I", 0), "no partitions"),
    ("huge payload", 48, struct.pack("<Q", 2**32), "is over"),
    ("reserved bits", 80, struct.pack("<I", 1), "reserved"),
]


@pytest.mark.parametrize(("name", "at", "value", "message"), WRONG, ids=[w[0] for w in WRONG])
def test_a_wrong_field_is_refused(name: str, at: int, value: bytes, message: str) -> None:
    head = example()[0][:HEADER_BYTES]
    with pytest.raises(FrameError, match=message):
        FrameHeader.decode(sealed(head[:at] + value + head[at + len(value) :]))


def test_the_largest_payload_is_no_error() -> None:
    header = replace(FrameHeader.decode(example()[0]), payload_bytes=2**32 - 1)
    assert FrameHeader.decode(header.encode()) == header


def test_a_wrong_checksum_of_the_header_is_refused() -> None:
    head = bytearray(example()[0][:HEADER_BYTES])
    head[10] ^= 1
    with pytest.raises(FrameError, match="header fails its checksum"):
        FrameHeader.decode(head)


def decode_with(**changes: object) -> Columns:
    """Decode the golden frame's columns with some of them changed, checksum set right."""
    head, _ = example()
    header = FrameHeader.decode(head)
    table = np.frombuffer(head[HEADER_BYTES:], "<u4").reshape(4, 4).copy()
    rows = {"partition": 0, "length": 1, "rows": 2, "crc": 3}
    for name, value in changes.items():
        if name in rows:
            table[rows[name]] = value
    data = table.tobytes()
    fields = {k: v for k, v in changes.items() if k not in rows}
    return Columns.decode(replace(header, columns_crc=crc.extend(0, data), **fields), data)


def test_wrong_columns_are_refused() -> None:
    assert decode_with().length.tolist() == [3, 3, 0, 5]
    crcs = decode_with().crc.tolist()
    for message, changes in [
        ("partition 5 is not below 5", {"partition": [0, 2, 2, 5]}),
        ("rising order", {"partition": [0, 2, 1, 4]}),
        ("add up to 12, not 11", {"length": [3, 3, 1, 5]}),
        (f"lengths add up to {3 * 2**32 + 11}", {"length": [2**32 - 1] * 3 + [14]}),
        ("add up to 11, not 12", {"payload_bytes": 12}),
        ("checksums do not add up", {"crc": [crcs[0] ^ 1, *crcs[1:]]}),
        ("checksums do not add up", {"length": [4, 2, 0, 5]}),
        ("checksums do not add up", {"payload_crc": 1}),
    ]:
        with pytest.raises(FrameError, match=message):
            decode_with(**changes)
    with pytest.raises(FrameError, match="columns have 64 bytes, not 80"):
        Columns.decode(replace(FrameHeader.decode(example()[0]), pieces=5), bytes(64))


def test_a_damaged_batch_header_is_refused() -> None:
    data = golden("batch.hex")[: blocks.HEADER_BYTES]
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError, match="damaged"):
            BatchHeader.decode(damaged)
    for length in (0, 1, 63, 65):
        with pytest.raises(ProtocolError, match="inside its header"):
            BatchHeader.decode((data + b"x")[:length])


@given(st.builds(Cursor, U32, U32, U64, U32, st.integers(0, 2**32)))
def test_cursor_round_trip(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


WRONG_CURSORS = [
    *("", "1.2.3.4", "1.2.3.4.5.6", "1.2.3.4.-5", "a.b.c.d.e", "1..3.4.5", "1..3.4.5.6"),
    *("\u0661.2.3.4.5", "1.2.3.4.5 ", "+1.2.3.4.5", "1.2.3.4.5.x", "4294967296.0.0.0.0"),
    *("0.4294967296.0.0.0", f"0.0.{2**64}.0.0", "0.0.0.4294967296.0", f"0.0.0.0.{'9' * 5000}"),
]


@pytest.mark.parametrize("text", WRONG_CURSORS, ids=range(len(WRONG_CURSORS)))
def test_a_wrong_cursor_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="cursor"):
        Cursor.parse(text)
