"""Directories as object stores see them: keys in rising order, and drafts of keys to be.

A draft is a file under a name that tells its key, beside the place of the object it will be. A
crash leaves nothing but drafts behind, and whoever lists them knows what they were for.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from crossdock.store.keys import DRAFT

_DRAFT_NAME: Final = re.compile(re.escape(DRAFT) + "([0-9a-f]{16})-(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a directory has."""

    name: str
    """Of the object, for a draft too."""
    is_folder: bool = False
    draft: str = ""
    """The draft's id; "" for a finished object."""
    size: int = 0
    modified_ns: int = 0
    """Since the epoch."""
    etag: str = ""


def new_draft() -> str:
    """Return an id for a draft that nobody else uses."""
    return secrets.token_hex(8)


def draft_key(key: str, draft: str) -> str:
    """Return where the draft of an object lies: in the same folder, so that a rename is enough."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{DRAFT}{draft}-{name}"


def parsed(name: str) -> tuple[str, str]:
    """Return the object's name and the draft's id ("" for none) of a file's name."""
    found = _DRAFT_NAME.fullmatch(name)
    return (found[2], found[1]) if found else (name, "")


def is_draft(draft: str) -> bool:
    """Whether a text can be a draft's id: what comes from outside must not become a path."""
    return re.fullmatch("[0-9a-f]{16}", draft) is not None


def walk(
    scan: Callable[[str], Iterable[Entry]], prefix: str, *, after: str = ""
) -> Iterator[tuple[str, Entry]]:
    """Yield keys and entries of files below `prefix`, rising, one folder in memory at a time.

    Args:
        scan: returns what is in a folder, which is "" or ends with a slash.
        prefix: any beginning of keys.
        after: leave out keys up to and with this one.
    """
    folder, slash, _ = prefix.rpartition("/")
    yield from _below(scan, folder + slash, prefix, after)


def _below(
    scan: Callable[[str], Iterable[Entry]], folder: str, prefix: str, after: str
) -> Iterator[tuple[str, Entry]]:
    # A folder sorts with its slash: "a.b" comes before "a/b", as it does among keys.
    entries = [(f"{folder}{e.name}{'/' if e.is_folder else ''}", e) for e in scan(folder)]
    entries.sort(key=lambda pair: (pair[0], pair[1].draft))
    for key, entry in entries:
        if entry.is_folder:
            wanted = key.startswith(prefix) or prefix.startswith(key)
            if wanted and (key > after or after.startswith(key)):
                yield from _below(scan, key, prefix, after)
        elif key.startswith(prefix) and key > after:
            yield key, entry
