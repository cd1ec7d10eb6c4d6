"""What is wrong with a file, gathered, each with its line and field."""

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from crossdock.errors import JobFileError, Problem

FieldPath: TypeAlias = tuple[str | int, ...]
"""Keys and indexes from a document's root to a field."""

_SHOWN_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a field stands, and what was written where YAML reads something that is no text."""

    line: int
    written: str | None = None


class Report:
    """The problems of one file. Fields that are not there have the line of what encloses them."""

    __slots__ = ("_problems", "source", "spots")

    def __init__(self, source: str) -> None:
        self.source = source
        self.spots: dict[FieldPath, Spot] = {}
        self._problems: set[Problem] = set()

    def add(self, path: FieldPath, what: str, remedy: str = "", *, line: int = 0) -> None:
        """Note a problem of a field; `line` only where it is not the field's own."""
        self._problems.add(
            Problem(
                file=self.source,
                line=line or self._line(path),
                field=_on_one_line(dotted(path)),
                what=_on_one_line(what),
                remedy=_on_one_line(remedy),
            )
        )

    def written(self, path: FieldPath) -> str | None:
        """Return a scalar as it was written, if YAML made something else than text of it."""
        spot = self.spots.get(path)
        return spot.written if spot else None

    def raise_if_any(self) -> None:
        """Raise `JobFileError` with all problems by line, if there are any."""
        if self._problems:
            raise JobFileError(sorted(self._problems))

    def _line(self, path: FieldPath) -> int:
        for length in range(len(path), -1, -1):
            if spot := self.spots.get(path[:length]):
                return spot.line
        return 1


def _on_one_line(text: str) -> str:
    """Return what can be printed safely, whatever the file has in its names."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def dotted(path: FieldPath) -> str:
    """Return a path as people write it: `spec.stages[0].name`."""
    parts = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif re.fullmatch(r"[\w$-]+", part):
            parts.append(f".{part}")
        else:
            parts.append(f"[{shown(part)}]")
    return "".join(parts).removeprefix(".")


def shown(value: object) -> str:
    """Return a value as YAML would have it on one line, cut when long."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like this one, or "" if none is."""
    folded = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else ""
