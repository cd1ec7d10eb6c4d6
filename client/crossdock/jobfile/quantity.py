"""Kubernetes quantities of bytes: `64Mi`, `1G`, `1.5Gi`, `1e9`, `1048576`."""

import re
from decimal import Decimal
from typing import Final

from crossdock.errors import ConfigError

MAX_BYTES: Final = 2**63 - 1
"""Largest quantity that Kubernetes keeps exactly."""

_NUMBER: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(.*)", re.ASCII)
_EXPONENT: Final = re.compile(r"[eE]([+-]?[0-9]{1,2})", re.ASCII)
_BINARY: Final = {f"{letter}i": 2 ** (10 * n) for n, letter in enumerate("KMGTPE", 1)}
_DECIMAL: Final = {"": 1} | {letter: 10 ** (3 * n) for n, letter in enumerate("kMGTPE", 1)}
_UNITS: Final = {suffix: Decimal(size) for suffix, size in (_BINARY | _DECIMAL).items()}
_EXAMPLES: Final = "64Mi, 1G or 1048576, for example"


def parse_bytes(value: float | str) -> int:
    """Return the bytes that a quantity means.

    Args:
        value: A whole number of bytes, or a quantity as Kubernetes writes it.

    Raises:
        ConfigError: It is none, not a whole number of bytes, or not within 1 to 2^63 - 1.
    """
    amount = _amount(value) if isinstance(value, str) else Decimal(value)
    if amount != amount.to_integral_value():
        raise ConfigError(f"{value} is not a whole number of bytes", hint="a byte is the least")
    if not 1 <= amount <= MAX_BYTES:
        raise ConfigError(f"{value} is out of range", hint="1 to 2^63 - 1 bytes")
    return int(amount)


def _amount(text: str) -> Decimal:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text[:30]!r} is no quantity of bytes", hint=_EXAMPLES)
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _UNITS:
        return number * _UNITS[suffix]
    if exponent := _EXPONENT.fullmatch(suffix):
        return number.scaleb(int(exponent[1]))
    if suffix == "m":
        raise ConfigError(f"{text} is in thousandths of a byte", hint="M or Mi is meant?")
    plain = suffix.strip().removesuffix("B").lower()
    near = [unit for unit in _UNITS if unit and unit.lower() in {plain, f"{plain}i"}]
    hint = f"{' or '.join(reversed(near))} is meant?" if near else _EXAMPLES
    raise ConfigError(f"{text[:30]!r} has no unit that is known", hint=hint)
