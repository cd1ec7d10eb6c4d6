"""What is said of a field beside its type: `Annotated[int, "What it is.", Range(1, 10)]`.

A text is the field's description, as `kubectl explain` shows it.
"""

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

NAME_CHARACTERS: Final = 63
"""Of a label, and so of what names are made of."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A validation in CEL, with a message that says what to do. `self` is the field."""

    rule: str
    message: str
    field: str = ""
    """Path below the field that the message is about, such as ".replicas"."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a number, both allowed."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Text:
    """Bounds of a text, and what it must look like: a regular expression that matches anywhere."""

    most: int
    pattern: str = ""
    least: int = 0


@dataclass(frozen=True, slots=True)
class Items:
    """Bound of a list."""

    most: int
    keys: tuple[str, ...] = ()
    """Fields that no two items have the same values of; they are how items are merged."""
    least: int = 0


@dataclass(frozen=True, slots=True)
class Quantity:
    """Bytes, written as a Kubernetes quantity such as 64Mi; the field holds their number."""

    least: int = 1


@dataclass(frozen=True, slots=True)
class Fragment:
    """A field whose schema is made elsewhere."""

    schema: dict[str, object]


def fixed(message: str) -> Rule:
    """Return the rule of a field that keeps the value it was made with."""
    return Rule("self == oldSelf", message)


def unchanged(name: str, message: str, *, part: str = "") -> Rule:
    """Return the rule of a field that is not set, changed or unset after its object was made.

    Args:
        name: of the field.
        message: what helps.
        part: of the field's value, if the rest may be changed.
    """
    at = f"{name}.{part}" if part else name
    return Rule(
        f"has(self.{name}) == has(oldSelf.{name}) && "
        f"(!has(self.{name}) || self.{at} == oldSelf.{at})",
        message,
        f".{name}",
    )


Name: TypeAlias = Annotated[str, Text(NAME_CHARACTERS, r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", least=1)]
"""Name of an object that names of others are made of."""
ObjectName: TypeAlias = Annotated[str, Text(253, r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", least=1)]
"""Name of any object."""
