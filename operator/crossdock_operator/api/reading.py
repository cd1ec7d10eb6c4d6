"""Objects as the API server has them → dataclasses.

What the server has validated and defaulted has the right shape, so there is little to say about
errors here; fields of later versions are passed over.
"""

import dataclasses
import functools
import types
from collections.abc import Mapping
from enum import StrEnum
from typing import (
    Annotated,
    Any,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from crossdock.errors import ConfigError
from crossdock.jobfile.quantity import parse_bytes
from crossdock_operator.api.fields import Quantity
from crossdock_operator.api.schema import camel

T = TypeVar("T")


def read(kind: type[T], data: Mapping[str, object]) -> T:
    """Return the dataclass that an object says.

    Raises:
        ConfigError: a field that has no default is missing, or a value is not of its type.
    """
    values = {}
    for field in _fields(cast("Any", kind)):
        if data.get(field.name) is not None:
            values[field.attribute] = _value(field.hint, data[field.name], field.name)
        elif field.required:
            raise ConfigError(f"{kind.__name__} has no {field.name}")
    return kind(**values)


class _Field(NamedTuple):
    attribute: str
    name: str
    hint: object
    required: bool


@functools.cache
def _fields(kind: type) -> tuple[_Field, ...]:
    """Return a dataclass's fields: to evaluate its hints takes longer than to read an object."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        _Field(
            attribute=each.name,
            name=camel(each.name),
            hint=hints[each.name],
            required=all(
                default is dataclasses.MISSING for default in (each.default, each.default_factory)
            ),
        )
        for each in dataclasses.fields(cast("Any", kind))
    )


def write(value: object) -> Any:
    """Return the JSON value of a dataclass, without fields that are None or empty lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {camel(name): write(each) for name, each in fields if each is not None}
    if isinstance(value, tuple):
        return [write(each) for each in value]
    return str(value) if isinstance(value, StrEnum) else value


def _value(hint: object, value: object, name: str) -> object:
    while True:
        if get_origin(hint) is Annotated:
            inner, *notes = get_args(hint)
            if any(isinstance(note, Quantity) for note in notes):
                return parse_bytes(cast("str", value))
            hint = inner
        elif get_origin(hint) in {Union, types.UnionType}:
            (hint,) = (h for h in get_args(hint) if h is not type(None))
        else:
            break
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(get_args(hint)[0], each, name) for each in value)
    if isinstance(hint, type):
        return _plain(hint, value, name)
    return value


def _plain(kind: type, value: object, name: str) -> object:
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return read(kind, value)
    if issubclass(kind, StrEnum):
        return kind(str(value))
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind):
        raise ConfigError(f"{name} is {value!r}, not {kind.__name__}")
    return value
