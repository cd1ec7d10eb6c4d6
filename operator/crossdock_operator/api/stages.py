"""The stages of a job file, as a part of the CRD: one schema for both.

A job file's schema is JSON Schema, for editors and for `crossdock validate`. What the API server
takes is less and other: no types in the plural, no `oneOf` with a message that helps. What of a
job file needs more than one stage to be judged is checked by the operator, in the words of
`crossdock validate`.
"""

import json
from importlib import resources
from typing import Any, Final

from crossdock_operator.api.fields import Rule
from crossdock_operator.api.schema import QUANTITY, Schema

_COPIED: Final = (
    "description", "type", "enum", "default", "required", "pattern", "minimum", "maximum",
    "maxLength", "minItems", "maxItems",
)  # fmt: skip
_LONGEST: Final = 1024
"""Of a text that the job file does not bound."""
_EARLIER: Final = "!has(self.inputs) || self.inputs.all(i, !has(i.stage) || i.stage != self.name)"
_AUTO: Final = (
    "(has(self.parallelism) && self.parallelism != 'auto') || "
    "(has(self.inputs) && self.inputs.exists(i, !has(i.read) || i.read != 'All'))"
)
RULES: Final = {
    "stages": (
        Rule(
            "self.all(s, self.exists_one(t, t.name == s.name))",
            "names of stages are unique in a job",
        ),
    ),
    "stages[]": (
        Rule(_EARLIER, "a stage reads stages before it, not itself", ".inputs"),
        Rule(
            _AUTO,
            "must be a number where no input is shared out: how many tasks shall there be?",
            ".parallelism",
        ),
        Rule(
            "!has(self.inputs) || self.inputs.filter(i, has(i.split) && i.split).size() <= 1",
            "one input of a stage can be split",
            ".inputs",
        ),
    ),
    "stages[].inputs[]": (
        Rule("has(self.files) != has(self.stage)", "must have exactly one of files and stage"),
        Rule(
            "!has(self.files) || ((!has(self.read) || self.read == 'Partitions') && "
            "(!has(self.split) || !self.split))",
            "read and split are for shuffles only: files are shared out whole",
        ),
        Rule(
            "!(has(self.read) && self.read == 'All' && has(self.split) && self.split)",
            "split does not go with read: All, every task reads all of it",
        ),
    ),
    "stages[].output": (
        Rule("has(self.files) != has(self.shuffle)", "must have exactly one of shuffle and files"),
    ),
    "stages[].parallelism": (
        Rule(
            "type(self) == string ? self == 'auto' : self >= 1 && self <= 100000",
            "must be auto or a number of tasks from 1 to 100000",
        ),
    ),
}
"""What CEL checks, by the path below the spec."""


def spec_fields() -> dict[str, Schema]:
    """Return the fields of a job file's spec, but for a cluster's own, as structural schemas."""
    text = resources.files("crossdock.jobfile").joinpath("schema.json").read_text("utf-8")
    fields: dict[str, Any] = json.loads(text)["properties"]["spec"]["properties"]
    return {n: _structural(field, n) for n, field in fields.items() if "x-cluster" not in field}


def _structural(source: Schema, path: str) -> Schema:
    found: Schema = {name: source[name] for name in _COPIED if name in source}
    kinds = source.get("type")
    if isinstance(kinds, list):
        _either(found)
        if source.get("format") == "quantity":
            found["pattern"] = QUANTITY
    if kinds == "string" and "enum" not in source:
        found.setdefault("maxLength", _LONGEST)
    if kinds == "integer":
        found["format"] = "int32"
    if "exclusiveMinimum" in source:
        found |= {"minimum": source["exclusiveMinimum"], "exclusiveMinimum": True}
    if kinds == "array":
        found["items"] = _structural(source["items"], f"{path}[]")
        found["x-kubernetes-list-type"] = "atomic"
    if kinds == "object":
        below = source.get("properties", {})
        found["properties"] = {n: _structural(s, f"{path}.{n}") for n, s in below.items()}
        if source.get("additionalProperties", True):
            found["x-kubernetes-preserve-unknown-fields"] = True
    if path in RULES:
        found["x-kubernetes-validations"] = [_rule(rule) for rule in RULES[path]]
    return found


def _either(found: Schema) -> None:
    """Make a schema that takes a number or a text; rules or a pattern say which."""
    for name in ("type", "minimum", "maximum", "pattern"):
        found.pop(name, None)
    found |= {"x-kubernetes-int-or-string": True, "maxLength": 32}


def _rule(rule: Rule) -> Schema:
    found = {"rule": rule.rule, "message": rule.message}
    return {**found, "fieldPath": rule.field} if rule.field else found
