"""Dataclasses → structural schemas, as the API server validates, defaults and explains them."""

import dataclasses
import re
import types
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

from crossdock_operator.api.fields import Fragment, Items, Quantity, Range, Rule, Text

QUANTITY: Final = (
    r"^([0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20})(k|[MGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$"
)
_INT32_MOST: Final = 2**31 - 1
_SCALARS: Final[dict[object, str]] = {bool: "boolean", str: "string", float: "number"}
_NOTHING: Final[tuple[object, ...]] = (None, "", (), {})
"""Defaults that the API server need not write."""

Schema = dict[str, Any]


def schema_of(kind: type) -> Schema:
    """Return the structural schema of a dataclass: its fields, defaults, and `RULES`."""
    hints = get_type_hints(kind, include_extras=True)
    properties: Schema = {}
    required = []
    for field in dataclasses.fields(kind):
        name = camel(field.name)
        properties[name] = _field(hints[field.name])
        default = _default(field, properties[name])
        if default is not None:
            properties[name]["default"] = default
        elif field.default is dataclasses.MISSING and (
            field.default_factory is dataclasses.MISSING
        ):
            required.append(name)
    found: Schema = {"type": "object", "properties": properties}
    if required:
        found["required"] = required
    if rules := getattr(kind, "RULES", ()):
        found["x-kubernetes-validations"] = [_rule(rule) for rule in rules]
    return found


def camel(name: str) -> str:
    """Return the name that a field of a dataclass has in JSON."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def quantity(number: int) -> str:
    """Return bytes as a quantity, in the largest unit that has no fraction."""
    for power, unit in reversed(list(enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")))):
        if number and number % 2 ** (10 * power) == 0:
            return f"{number >> (10 * power)}{unit}"
    return "0"


def _field(hint: object) -> Schema:
    """Return the schema of a field's type with what is said beside it."""
    said: list[object] = []
    while True:
        if get_origin(hint) is Annotated:
            inner, *notes = get_args(hint)
            said, hint = [*notes, *said], inner
        elif get_origin(hint) in {Union, types.UnionType}:
            (hint,) = (h for h in get_args(hint) if h is not type(None))
        else:
            break
    description = " ".join(note for note in said if isinstance(note, str))
    found: Schema = {"description": description} if description else {}
    found |= _typed(hint, said)
    rules = [_rule(note) for note in said if isinstance(note, Rule)]
    if rules:
        found["x-kubernetes-validations"] = [*found.get("x-kubernetes-validations", ()), *rules]
    return found


def _typed(hint: object, said: list[object]) -> Schema:
    for note in said:
        if isinstance(note, Fragment):
            return dict(note.schema)
        if isinstance(note, Quantity):
            return _quantity(note)
    if get_origin(hint) is tuple:
        return _list(get_args(hint)[0], said)
    if get_origin(hint) is Mapping:
        return _mapping(get_args(hint)[1])
    if isinstance(hint, type):
        return _plain(hint, said)
    raise TypeError(f"a field of a resource cannot be {hint!r}")


def _plain(kind: type, said: list[object]) -> Schema:
    if issubclass(kind, StrEnum):
        return {"type": "string", "enum": [str(value) for value in kind]}
    if dataclasses.is_dataclass(kind):
        return schema_of(kind)
    if kind is int:
        return _whole(said)
    found: Schema = {"type": _SCALARS[kind]}
    for note in said:
        if isinstance(note, Text):
            found["maxLength"] = note.most
            found |= {"minLength": note.least} if note.least else {}
            found |= {"pattern": note.pattern} if note.pattern else {}
    return found


def _whole(said: list[object]) -> Schema:
    bounds = [note for note in said if isinstance(note, Range)]
    if not bounds:
        return {"type": "integer", "format": "int64"}
    size = "int32" if bounds[-1].most <= _INT32_MOST else "int64"
    limits = {"minimum": bounds[-1].least, "maximum": bounds[-1].most}
    return {"type": "integer", "format": size, **limits}


def _list(item: object, said: list[object]) -> Schema:
    found: Schema = {"type": "array", "items": _field(item), "x-kubernetes-list-type": "atomic"}
    for note in said:
        if isinstance(note, Items):
            found["maxItems"] = note.most
            if note.least:
                found["minItems"] = note.least
            if note.keys:
                found["x-kubernetes-list-type"] = "map"
                found["x-kubernetes-list-map-keys"] = list(note.keys)
    return found


def _mapping(value: object) -> Schema:
    if value is object:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {"type": "object", "additionalProperties": _field(value)}


def _quantity(note: Quantity) -> Schema:
    rule = Rule(
        f"type(self) == int ? self >= {note.least} : isQuantity(self) && "
        f"quantity(self).compareTo(quantity('{note.least}')) >= 0",
        "must be a size such as 64Mi, 1G or a number of bytes"
        + ("" if note.least <= 1 else f", and {quantity(note.least)} or more"),
    )
    return {
        "x-kubernetes-int-or-string": True,
        "maxLength": 32,
        "x-kubernetes-validations": [_rule(rule)],
    }


def _rule(rule: Rule) -> Schema:
    found = {"rule": rule.rule, "message": rule.message}
    return {**found, "fieldPath": rule.field} if rule.field else found


def _default(field: "dataclasses.Field[Any]", schema: Schema) -> object:
    """Return what the API server writes where the field is missing; None: nothing."""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING or any(value == nothing for nothing in _NOTHING):
        return None
    if dataclasses.is_dataclass(value):
        return _whole_default(schema)
    if schema.get("x-kubernetes-int-or-string"):
        return quantity(int(value))
    return str(value) if isinstance(value, StrEnum) else value


def _whole_default(schema: Schema) -> Schema:
    """Return the default of an object. Where it has rules, with the defaults below it.

    Rules judge a default as it is written; elsewhere the API server fills in what is below.
    """
    if "x-kubernetes-validations" not in schema:
        return {}
    below: Schema = schema["properties"]
    return {name: field["default"] for name, field in below.items() if "default" in field}


def without_defaults(schema: Schema) -> Schema:
    """Return the schema of what nobody but the operator writes: nothing is filled in."""
    found = {name: value for name, value in schema.items() if name != "default"}
    if "properties" in schema:
        found["properties"] = {n: without_defaults(s) for n, s in schema["properties"].items()}
    if "items" in schema:
        found["items"] = without_defaults(schema["items"])
    return found


def snake(name: str) -> str:
    """Return the name of the dataclass's field for one in JSON."""
    return re.sub(r"([A-Z])", lambda match: f"_{match[1].lower()}", name)
