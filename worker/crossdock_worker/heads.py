"""Where requests begin and end among the bytes of a connection.

Only what is certain counts: aiohttp parses the same bytes, and a body that was taken for a head
would be changed. After a request that this reading is not sure of, nothing is certain any more.
"""

import re
from dataclasses import dataclass
from typing import Final

_END: Final = b"\r\n\r\n"
_REQUEST_LINE: Final = re.compile(rb"(?:GET|HEAD|PUT|POST|DELETE) /[^ \r\n]* HTTP/1\.1\r\n")
_FRAME_LINE: Final = re.compile(rb"PUT /v1/jobs/[^ \r\n]+/frames HTTP/1\.1\r\n")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
_EXPECT: Final = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
_ODD: Final = re.compile(
    rb"\r\n(?:[ \t]|transfer-encoding|upgrade)|(?<!\r)\n|\r(?!\n)", re.IGNORECASE
)
"""Continued lines, lone ends of lines, and what ends a body otherwise than by its length."""


@dataclass(frozen=True, slots=True)
class FrameHead:
    """The head of a frame whose body has not been sent yet."""

    without_length: bytes
    """The head of the same request without a body."""
    body_bytes: int


class Bounds:
    """Follows a connection's bytes from request to request."""

    __slots__ = ("_left", "certain", "requests")

    def __init__(self) -> None:
        self.certain = True
        """Whether it is known where requests begin; once lost, it stays so."""
        self.requests = 0
        """How many have begun, as long as that is certain."""
        self._left = 0

    @property
    def between(self) -> bool:
        """Whether the next byte is the first of a request, for certain."""
        return self.certain and not self._left

    def passed(self, data: bytes) -> None:
        """Note the connection's next bytes."""
        if not self.certain:
            return
        if self._left:
            self._left -= len(data)
        elif (head := _sure_head(data)) is None:
            self.certain = False
            return
        else:
            self.requests += 1
            self._left = _body_bytes(head) - (len(data) - len(head))
        self.certain = self._left >= 0  # else the next request came before this one's answer


def frame_head(data: bytes) -> FrameHead | None:
    """Return the frame's head that these bytes are, first of a request; None if anything else."""
    if not data.endswith(_END) or not _FRAME_LINE.match(data):
        return None
    head = _sure_head(data)
    if head is None or len(head) != len(data) or not _EXPECT.search(head):
        return None
    body_bytes = _body_bytes(head)
    return FrameHead(_LENGTH.sub(b"", head), body_bytes) if body_bytes else None


def _sure_head(data: bytes) -> bytes | None:
    end = data.find(_END)
    if end < 0 or not _REQUEST_LINE.match(data):
        return None
    head = data[: end + len(_END)]
    lengths = head.lower().count(b"\r\ncontent-length")
    if _ODD.search(head) or lengths != len(_LENGTH.findall(head)) or lengths > 1:
        return None
    return head


def _body_bytes(head: bytes) -> int:
    length = _LENGTH.search(head)
    return int(length[1]) if length is not None else 0
