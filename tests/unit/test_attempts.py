"""Which frames can belong to an attempt of which some are here."""

import pytest

from crossdock.errors import AttemptConflict
from crossdock.wire.frame import FrameHeader
from crossdock_worker.attempts import Attempts, GivenUp
from raw import make_frame

WORDS = ("words", 0)
KEY = (3, 7)
ME, OTHER = b"me" * 8, b"it" * 8


def header(seq: int, count: int, writer: bytes = ME) -> FrameHeader:
    return FrameHeader.decode(
        make_frame([], partitions=1, map_id=3, attempt=7, seq=seq, count=count, writer=writer)
    )


def with_frames(*frames: tuple[int, int]) -> Attempts:
    """Return attempts of which these (seq, count) came, in this order."""
    found = Attempts(WORDS, GivenUp())
    for seq, count in frames:
        found.check(header(seq, count))
        found.remember(KEY, seq, count, ME, 100)
    return found


@pytest.mark.parametrize(
    ("here", "fits", "conflicts"),
    [
        ([], [(0, 0), (9, 0), (0, 1), (4, 5)], []),
        ([(4, 5)], [(0, 0), (3, 0)], [(5, 0), (6, 0), (3, 4), (5, 6)]),
        ([(4, 5), (1, 0)], [(3, 0)], [(5, 0), (3, 4)]),
        ([(4, 0)], [(5, 0), (9, 0), (5, 6)], [(3, 4), (0, 1)]),
        ([(4, 0), (1, 0)], [(5, 6)], [(2, 3), (3, 4)]),
        ([(1, 0), (4, 0)], [(5, 6)], [(2, 3), (3, 4)]),
    ],
)
def test_numbers(
    here: list[tuple[int, int]], fits: list[tuple[int, int]], conflicts: list[tuple[int, int]]
) -> None:
    attempts = with_frames(*here)
    for frame in fits:
        attempts.check(header(*frame))
    for frame in conflicts:
        with pytest.raises(AttemptConflict):
            attempts.check(header(*frame))


def test_an_attempt_has_one_writer() -> None:
    attempts = with_frames((0, 0))
    with pytest.raises(AttemptConflict, match="another writer"):
        attempts.check(header(1, 0, OTHER))
    assert attempts.is_of(KEY, ME)
    with pytest.raises(AttemptConflict, match="another writer's"):
        attempts.is_of(KEY, OTHER)
    assert not attempts.is_of((3, 8), OTHER)


def test_an_abort_is_for_good() -> None:
    attempts = with_frames((0, 0))
    assert not attempts.is_committed(KEY)
    assert not attempts.is_aborted(KEY)
    attempts.abort(KEY)
    assert attempts.is_aborted(KEY)
    assert not attempts.is_of(KEY, OTHER)  # nothing of it is here any more
    with pytest.raises(AttemptConflict, match="aborted"):
        attempts.check(header(1, 0))


def test_a_last_frame_commits_whatever_comes_after_it() -> None:
    attempts = with_frames((1, 2), (0, 0))
    assert attempts.is_committed(KEY)
    assert not attempts.is_committed((3, 8))


def test_a_frame_that_comes_after_its_writer_gave_up_is_refused() -> None:
    given_up = GivenUp()
    found, next_one = Attempts(WORDS, given_up), Attempts(("words", 1), given_up)
    given_up.note(WORDS, KEY, ME)
    with pytest.raises(AttemptConflict, match="aborted by its writer"):
        found.check(header(0, 1))
    found.check(header(0, 1, OTHER))
    next_one.check(header(0, 1))


def test_only_so_many_that_never_came_are_remembered() -> None:
    given_up = GivenUp()
    for number in range(10_000):
        given_up.note(WORDS, (number, 0), ME)
    known = [n for n in range(10_000) if given_up.has(WORDS, (n, 0), ME)]
    assert known == list(range(10_000 - 4096, 10_000))
