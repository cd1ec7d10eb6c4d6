"""Which keys a store takes: those that are safe as paths of a directory and as keys of S3."""

from typing import Final

from crossdock.errors import ConfigError

DRAFT: Final = ".upload-"
"""Begins the names of files that are not finished yet, in stores that have files."""

_MAX_KEY_BYTES: Final = 1024  # S3's limit, which counts the prefix of the store too
_MAX_PART_BYTES: Final = 220  # leaves room for a draft's own beginning in the 255 of a file name
_FIRST_PRINTABLE: Final = " "
_DELETE: Final = "\x7f"


def check_key(key: str) -> str:
    """Return `key`, or raise `ConfigError` that says what is wrong with it."""
    wrong = _wrong_parts(key.split("/")) or _wrong_text(key)
    if wrong:
        raise ConfigError(f"{key!r} is no key: {wrong}")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix`, the beginning of keys, or raise `ConfigError` if no key begins so."""
    *whole, _ = prefix.split("/")
    wrong = _wrong_parts(whole) or _wrong_text(prefix)
    if wrong:
        raise ConfigError(f"{prefix!r} is no beginning of keys: {wrong}")
    return prefix


def _wrong_parts(parts: list[str]) -> str:
    for part in parts:
        if not part:
            return "a part of it is empty"
        if part in {".", ".."}:
            return "it leaves its place"
        if part.startswith(DRAFT):
            return f"names that begin with {DRAFT} are for unfinished objects"
        if len(part.encode()) > _MAX_PART_BYTES:
            return f"a part of it is longer than {_MAX_PART_BYTES} bytes"
    return ""


def _wrong_text(key: str) -> str:
    if len(key.encode()) > _MAX_KEY_BYTES:
        return f"it is longer than {_MAX_KEY_BYTES} bytes"
    if any(c < _FIRST_PRINTABLE or c == _DELETE for c in key):
        return "it has control characters"
    return ""
