"""A source as a file, in the ways in which HTTP clients read it."""

import io

from places import RandomSource

from crossdock.store.bodies import PIECE_BYTES, BodyFile


def test_a_body_can_be_read_into_memory_of_the_callers_size() -> None:
    source = RandomSource(2 * PIECE_BYTES + 17)
    body = BodyFile(source)
    found = bytearray()
    target = bytearray(70_001)
    while n := body.readinto(target):
        found += target[:n]
    assert found == source.read_at(0, source.nbytes)
    assert body.readinto(target) == 0


def test_both_ways_of_reading_go_on_where_the_other_stopped_and_after_a_rewind() -> None:
    source = RandomSource(3 * PIECE_BYTES)
    body = BodyFile(source)
    target = bytearray(10)
    assert body.readinto(target) == 10
    rest = bytes(body.read(5))
    assert bytes(target) + rest == source.read_at(0, 10 + len(rest))
    assert body.seek(-3, io.SEEK_END) == source.nbytes - 3
    assert body.readinto(target) == 3
    assert body.seek(0) == 0
    assert body.readinto(target) == 10
    assert bytes(target) == source.read_at(0, 10)
