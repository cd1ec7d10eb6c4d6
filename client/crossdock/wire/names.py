"""Names in URLs and on disks: job uids and shuffle names, and the URL paths made of them."""

import re
from typing import Final

from crossdock.errors import ProtocolError

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""A job uid or a shuffle name: safe as a URL segment, a file name and a part of an object key."""

U32_MAX: Final = 2**32 - 1
U64_MAX: Final = 2**64 - 1


def check_name(kind: str, name: str) -> str:
    """Return `name`, or raise `ProtocolError` naming it and the rule."""
    if not NAME.fullmatch(name):
        raise ProtocolError(
            f"{kind} {name!r} is not a valid name",
            hint="1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit",
        )
    return name


def check_u32(kind: str, value: int) -> int:
    """Return `value`, or raise `ProtocolError` unless it fits 32 unsigned bits."""
    if not 0 <= value <= U32_MAX:
        raise ProtocolError(f"{kind} {value} does not fit 32 unsigned bits")
    return value


def check_u64(kind: str, value: int) -> int:
    """Return `value`, or raise `ProtocolError` unless it fits 64 unsigned bits."""
    if not 0 <= value <= U64_MAX:
        raise ProtocolError(f"{kind} {value} does not fit 64 unsigned bits")
    return value


RELEASED: Final = "/v1/released"
"""URL path of what workers tell each other when they delete what was released."""


def job_path(job: str) -> str:
    """Return the URL path of a job."""
    return f"/v1/jobs/{job}"


def shuffle_path(job: str, shuffle: str, generation: int) -> str:
    """Return the URL path of one generation of a shuffle."""
    return f"/v1/jobs/{job}/shuffles/{shuffle}/{generation}"


def parse_number(kind: str, text: str, top: int) -> int:
    """Parse decimal digits, or raise `ProtocolError` unless they are a number from 0 to `top`."""
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > top:
        raise ProtocolError(f"{kind} {text!r} is not a whole number from 0 to {top}")
    return int(text)


def parse_range(text: str, *, kind: str, top: int) -> tuple[int, int]:
    """Parse "a-b" (half open) or "a" into (a, b), within [0, top]."""
    match = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", text)
    if not match:
        raise ProtocolError(f"{kind}={text!r} is not a range", hint="a-b, b not included, or a")
    first = int(match[1])
    last = int(match[2]) if match[2] is not None else first + 1
    if not 0 <= first <= last <= top:
        raise ProtocolError(f"{kind}={text} is outside 0-{top}")
    return first, last
