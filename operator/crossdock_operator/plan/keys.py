"""Rotation of signing keys, in steps: no worker ever meets a token that it cannot check.

The workers of a cluster read their key file again when it changes, but not all at one moment. So a
new key comes last in the file at first, where it is only checked with; it comes first, and signs,
when all must have it; and the one before goes when no token of it can still be good.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SPREAD_SECONDS: Final = 900.0
"""Kubelets bring a changed Secret to all pods within this time."""
RETIRED_SECONDS: Final = 7 * 86_400.0
"""No token is good for longer than this: those that the operator mints, for a day."""
_DAY_SECONDS: Final = 86_400.0


class Role(StrEnum):
    """What a key of the file is for."""

    SIGNS = "signs"
    WAITS = "waits"
    """It is checked with, and is to sign next."""
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One line of the file."""

    text: str
    role: Role
    since: float
    """When it took its role; seconds since 1970."""


def rotated(
    keys: Sequence[SigningKey], *, days: int, now: float, fresh: Callable[[], str]
) -> list[SigningKey]:
    """Return the keys as they shall be now: the one that signs comes first.

    Args:
        keys: as they are; none: there is no key yet.
        days: age at which the signing key is replaced; 0: never.
        now: seconds since 1970.
        fresh: makes a key.
    """
    if not keys:
        return [SigningKey(fresh(), Role.SIGNS, now)]
    found = [
        key for key in keys if key.role is not Role.RETIRED or now - key.since < RETIRED_SECONDS
    ]
    waiting = next((key for key in found if key.role is Role.WAITS), None)
    signing = next((key for key in found if key.role is Role.SIGNS), None)
    if waiting is not None and (signing is None or now - waiting.since >= SPREAD_SECONDS):
        found = [
            SigningKey(waiting.text, Role.SIGNS, now),
            *(SigningKey(k.text, Role.RETIRED, now) for k in found if k.role is Role.SIGNS),
            *(k for k in found if k.role is Role.RETIRED),
        ]
    elif waiting is None and days and signing and now - signing.since >= days * _DAY_SECONDS:
        found.append(SigningKey(fresh(), Role.WAITS, now))
    return sorted(found, key=lambda key: _ORDER[key.role])


_ORDER: Final = {Role.SIGNS: 0, Role.WAITS: 1, Role.RETIRED: 2}


def next_rotation(keys: Sequence[SigningKey], *, days: int) -> float:
    """Return when `rotated` changes something next, seconds since 1970; 0: never."""
    due = [key.since + SPREAD_SECONDS for key in keys if key.role is Role.WAITS]
    due += [key.since + RETIRED_SECONDS for key in keys if key.role is Role.RETIRED]
    if days and not any(key.role is Role.WAITS for key in keys):
        due += [key.since + days * _DAY_SECONDS for key in keys if key.role is Role.SIGNS]
    return min(due, default=0.0)


def key_file(keys: Sequence[SigningKey]) -> str:
    """Return the file as workers read it."""
    return "".join(f"{key.text}\n" for key in keys)


def to_note(keys: Sequence[SigningKey]) -> str:
    """Return what is noted beside the file: the role of each line, and since when."""
    return json.dumps([[key.role, key.since] for key in keys])


def from_file(text: str, note: str, *, now: float) -> list[SigningKey]:
    """Return the keys of a file.

    What is not noted was written by somebody else: its first key signs from now on, and the
    others are retired.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    try:
        roles = [(Role(role), float(since)) for role, since in json.loads(note or "[]")]
    except (TypeError, ValueError):
        roles = []
    if len(roles) != len(lines) or not roles or roles[0][0] is not Role.SIGNS:
        roles = [(Role.SIGNS if n == 0 else Role.RETIRED, now) for n in range(len(lines))]
    return [SigningKey(line, role, since) for line, (role, since) in zip(lines, roles, strict=True)]
