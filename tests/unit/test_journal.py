"""The journal: a torn tail is cut, damage anywhere else is reported, nothing is skipped."""

from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from crossdock.errors import DataCorrupt
from crossdock_worker import journal
from crossdock_worker.journal import Kind
from crossdock_worker.rows import ROW

BODIES = [b"\x05\0\0\0", b"frame one" * 9, b"", b"\0" * 12, b"frame two" * 9]
KINDS = [Kind.SHUFFLE, Kind.FRAME, Kind.ABORT, Kind.ABORT, Kind.FRAME]
RECORDS = [journal.encode(k, b) for k, b in zip(KINDS, BODIES, strict=True)]
ENDS = [len(b"".join(RECORDS[: i + 1])) for i in range(len(RECORDS))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def replayed(path: Path, data: bytes) -> list[bytes]:
    path.write_bytes(data)
    return [r.body for r in journal.replay(path)]


def test_round_trip(path: Path) -> None:
    path.write_bytes(b"".join(RECORDS))
    found = list(journal.replay(path))
    assert [(r.kind, r.body) for r in found] == list(zip(KINDS, BODIES, strict=True))
    assert [r.offset for r in found] == [0, *ENDS[:-1]]
    assert path.read_bytes() == b"".join(RECORDS)
    assert replayed(path, b"") == []


def test_a_torn_tail_of_every_length_is_cut(path: Path) -> None:
    whole = b"".join(RECORDS)
    for length in range(len(whole)):
        kept = sum(end <= length for end in ENDS)
        assert replayed(path, whole[:length]) == BODIES[:kept], length
        assert path.read_bytes() == b"".join(RECORDS[:kept]), length


def test_a_short_tail_of_zeros_is_cut(path: Path) -> None:
    for length in (1, 7, 8, 12, journal.FRAME_BYTES - 1):
        with capture_logs() as logged:
            assert replayed(path, b"".join(RECORDS) + bytes(length)) == BODIES
        assert path.stat().st_size == ENDS[-1]
        (line,) = logged
        assert (line["event"], line["file"]) == ("journal was cut", str(path))
        assert (line["offset"], line["cut_bytes"]) == (ENDS[-1], length)
    first = journal.SHUFFLE_BYTES + journal.FRAME_BYTES
    assert replayed(path, bytes(first - 1)) == []


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_acked_records_that_read_as_zeros_are_reported(path: Path, kept: int) -> None:
    frames = [journal.encode(Kind.FRAME, bytes([i]) * ROW.itemsize) for i in range(1, 6)]
    records = [journal.encode(Kind.SHUFFLE, b"\1\0\0\0"), *frames]
    offset = 0 if not kept else len(b"".join(records[: kept + 1]))
    whole = b"".join(records)
    for end in {len(whole), max(offset + journal.FRAME_BYTES, len(b"".join(records[:2])))}:
        data = whole[:offset] + bytes(end - offset)
        _, message = records_before_damage(path, data)
        assert f"{path} is damaged at offset {offset}" in message
        assert path.read_bytes() == data


def test_after_a_cut_the_journal_goes_on(path: Path) -> None:
    replayed(path, b"".join(RECORDS) + RECORDS[1][:30])
    with path.open("ab") as file:
        file.write(RECORDS[4])
    assert [r.body for r in journal.replay(path)] == [*BODIES, BODIES[4]]


def records_before_damage(path: Path, data: bytes) -> tuple[list[bytes], str]:
    path.write_bytes(data)
    records = journal.replay(path)
    found: list[bytes] = []
    with pytest.raises(DataCorrupt) as caught:
        found.extend(record.body for record in records)
    return found, str(caught.value)


def test_every_flipped_bit_is_reported(path: Path) -> None:
    whole = b"".join(RECORDS)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        hit = sum(end <= bit // 8 for end in ENDS)
        found, message = records_before_damage(path, bytes(damaged))
        assert found == BODIES[:hit], bit
        assert f"{path} is damaged at offset {[0, *ENDS][hit]}" in message, bit
        assert path.stat().st_size == len(whole), bit


@pytest.mark.parametrize("junk", [b"XDJ2", b"garbage!" * 9, b"\0" * 12 + b"x", b"X" + b"\0" * 30])
def test_junk_behind_the_records_is_reported(path: Path, junk: bytes) -> None:
    found, message = records_before_damage(path, b"".join(RECORDS) + junk)
    assert found == BODIES
    assert f"offset {ENDS[-1]}" in message


def test_a_sound_record_of_a_kind_that_is_not_known_is_reported(path: Path) -> None:
    """Another version may have written it: what it says is not guessed at."""
    unknown = journal.encode(cast("Kind", 9), b"news")
    found, message = records_before_damage(path, RECORDS[0] + unknown + RECORDS[1])
    assert found == BODIES[:1]
    assert f"offset {ENDS[0]}" in message


def test_a_damaged_head_without_a_body_is_reported(path: Path) -> None:
    """A torn append is a beginning of a sound record: a head that is whole has its checksum."""
    head = bytearray(RECORDS[1][:12])
    assert replayed(path, b"".join(RECORDS) + head) == BODIES
    head[6] ^= 1
    found, message = records_before_damage(path, b"".join(RECORDS) + head)
    assert found == BODIES
    assert f"offset {ENDS[-1]}" in message


def test_a_hole_of_zeros_in_the_middle_is_reported(path: Path) -> None:
    found, message = records_before_damage(path, RECORDS[0] + bytes(4096) + RECORDS[1])
    assert found == BODIES[:1]
    assert f"offset {ENDS[0]}" in message


@given(st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=200)), max_size=20), st.data())
def test_any_records_and_any_cut(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[tuple[Kind, bytes]],
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-journal"
    encoded = [journal.encode(*r) for r in records]
    whole = b"".join(encoded)
    length = data.draw(st.integers(0, len(whole)))
    ends = [len(b"".join(encoded[: i + 1])) for i in range(len(encoded))]
    kept = sum(end <= length for end in ends)
    assert replayed(path, whole[:length]) == [b for _, b in records[:kept]]
