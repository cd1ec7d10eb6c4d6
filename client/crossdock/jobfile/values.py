"""Looking at JSON values that may have any shape."""

from collections.abc import Mapping, Sequence


def mapping(value: object) -> Mapping[str, object]:
    """Return the mapping, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> Sequence[object]:
    """Return the list, or an empty one for anything else."""
    return value if isinstance(value, list) else []


def text(value: object) -> str:
    """Return the text, or an empty one for anything else."""
    return value if isinstance(value, str) else ""
