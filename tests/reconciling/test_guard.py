"""One object's trouble is no other's."""

import pytest

from crossdock_operator.guard import apart


def test_what_fails_is_told_and_the_others_go_on() -> None:
    done = []
    for each in (1, 0, 2):
        with apart("divides", number=each):
            done.append(2 // each)
    assert done == [2, 1]


def test_the_end_of_the_operator_is_no_trouble_of_an_object() -> None:
    with pytest.raises(KeyboardInterrupt), apart("waits"):
        raise KeyboardInterrupt
