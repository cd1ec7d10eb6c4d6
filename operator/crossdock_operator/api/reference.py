"""The reference of the CRDs for people, made of the same schemas: `docs/crds.md`.

python -m crossdock_operator.api.reference docs/crds.md
"""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from crossdock_operator.api.common import GROUP, VERSION
from crossdock_operator.api.crds import crds
from crossdock_operator.api.schema import Schema

_COLUMNS: Final = 108
_HEADER: Final = f"""\
# Resources

Every field of the two resources of `{GROUP}/{VERSION}`. This page is made by `make crds` of what
the API server checks; `kubectl explain shufflejob.spec` shows the same. More of clusters and jobs
is in [operator.md](operator.md), of stages in [job-file.md](job-file.md).
"""


def text() -> str:
    """Return the page."""
    parts = [_HEADER]
    for crd in crds().values():
        names, (version,) = crd["spec"]["names"], crd["spec"]["versions"]
        schema = version["schema"]["openAPIV3Schema"]
        short = ", ".join(f"`{name}`" for name in names["shortNames"])
        about = _wrapped(f"{schema['description']} Short name: {short}.")
        parts.append(f"\n## {names['kind']}\n\n{about}")
        for part in ("spec", "status"):
            parts += _object(f"{names['kind']} {part}", schema["properties"][part])
    return "".join(parts)


def _object(title: str, schema: Schema) -> Iterator[str]:
    """Yield an object's fields, and after them the objects among these, each a section."""
    yield f"\n### {title}\n\n"
    yield from (_wrapped(f"- {rule}", indent=2) for rule in _rules(schema))
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        yield _wrapped(f"- {_field(name, field, required=name in required)}", indent=2)
    for name, field in schema["properties"].items():
        inner = field.get("items", field)
        if "properties" in inner:
            yield from _object(f"{title}.{name}{'[]' if inner is not field else ''}", inner)


def _field(name: str, field: Schema, *, required: bool) -> str:
    inner = field.get("items", field)
    facts = [_type(field)]
    if required:
        facts.append("required")
    if "default" in field and not isinstance(field["default"], dict):
        facts.append(f"default `{_plain(field['default'])}`")
    facts += _bounds(inner)
    words = [f"`{name}` ({', '.join(facts)}): {field.get('description', '')}".rstrip(": ")]
    if "properties" not in inner:
        words += _rules(field)
    return " ".join(words)


def _type(field: Schema) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if "items" in field:
        return f"list of {_type(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"map of {_type(field['additionalProperties'])}"
    if "enum" in field:
        return " or ".join(f"`{_plain(value)}`" for value in field["enum"])
    return str(field.get("format", field["type"]))


def _bounds(field: Schema) -> list[str]:
    least, most = field.get("minimum"), field.get("maximum")
    if least is not None and most is not None:
        return [f"{least} to {most}"]
    if least is not None:
        return [f"at least {least}"]
    return [] if most is None else [f"at most {most}"]


def _rules(field: Schema) -> Iterator[str]:
    """Yield what the API server says to those who break a rule, as sentences."""
    for rule in field.get("x-kubernetes-validations", ()):
        message: str = rule["message"]
        path = rule.get("fieldPath", "").lstrip(".")
        text = f"`{path}`: {message}" if path else f"{message[0].upper()}{message[1:]}"
        yield text if text.endswith(("?", ".")) else f"{text}."


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _wrapped(line: str, *, indent: int = 0) -> str:
    return (
        textwrap.fill(
            line,
            _COLUMNS,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())
