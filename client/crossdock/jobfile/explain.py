"""Errors of the JSON schema, as problems that tell people what to do."""

from collections.abc import Iterator, Mapping
from typing import Final

from jsonschema.exceptions import ValidationError

from crossdock.errors import ConfigError
from crossdock.jobfile.report import FieldPath, Report, dotted, nearest, shown
from crossdock.jobfile.values import items, mapping, text

_LABEL: Final = "must be of a-z 0-9 - and have a letter or digit at both ends"
PATTERNS: Final = {
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": _LABEL,
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": "must be of A-Z a-z 0-9 . _ - and begin with a letter or digit",
    "^auto$": "must be auto or a number of tasks",
    "^[^=\\x00]+$": "must not be empty, and have no = and no NUL",
    "^[^\\x00]+$": "must not be empty, and have no NUL",
    "^[^\\x00]*$": "must have no NUL",
}
"""What the patterns of the schema mean."""

_TYPES: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def explain(error: ValidationError, report: Report, places: Mapping[str, list[str]]) -> None:
    """Note what an error of the schema means.

    `places` says for each field's name where the schema has it.
    """
    path: FieldPath = tuple(error.absolute_path)
    schema = mapping(error.schema)
    match error.validator:
        case "type":
            report.add(path, *_wrong_type(error, report.written(path)))
        case "required":
            _missing(error, path, schema, report)
        case "additionalProperties":
            _unknown(error, path, schema, report, places)
        case "oneOf":
            _one_of(error, path, report)
        case "enum":
            known = [str(value) for value in items(error.validator_value)]
            like = nearest(str(error.instance), known)
            what = f"must be {_either(known)}, is {shown(error.instance)}"
            report.add(path, what, f"{like} is meant?" if like and len(known) > 1 else "")
        case "format":
            cause = error.cause
            assert isinstance(cause, ConfigError), "so the format is checked"
            report.add(path, cause.message, cause.hint)
        case "pattern":
            if "format" not in schema:  # which says it better
                report.add(path, *_wrong_pattern(error, schema))
        case "minItems" | "maxItems":
            bound = "at least" if error.validator == "minItems" else "at most"
            what = f"must have {bound} {error.validator_value}, has {len(items(error.instance))}"
            report.add(path, what)
        case _:
            report.add(path, f"{_bound(error)}, is {shown(error.instance)}")


def fields(schema: object, path: str = "") -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield every field of the schema: its dotted path, with [] after lists, and its schema."""
    here = mapping(schema)
    for name, below in mapping(here.get("properties")).items():
        field = f"{path}.{name}".removeprefix(".")
        yield field, mapping(below)
        yield from fields(below, field)
    if "items" in here:
        yield from fields(here["items"], f"{path}[]")


def _wrong_type(error: ValidationError, written: str | None) -> tuple[str, str]:
    value, expected = error.instance, error.validator_value
    wanted = [expected] if isinstance(expected, str) else list(map(str, items(expected)))
    must = f"must be {' or '.join(_TYPES[t] for t in wanted)}"
    if value is None:
        return "is empty", f"it {must}"
    if "string" in wanted and written is not None:
        return f"{must}, and YAML reads {written} as {shown(value)}", f'quote it: "{written}"'
    remedy = ""
    if isinstance(value, str):
        if "array" in wanted:
            remedy = "[a, b], or a line with - for each item"
        elif {"integer", "number"} & set(wanted) and value.replace(".", "", 1).isdigit():
            remedy = "write the number without quotes"
    return f"{must}, is {shown(value)}", remedy


def _wrong_pattern(error: ValidationError, schema: Mapping[str, object]) -> tuple[str, str]:
    number = "integer" in items(schema.get("type")) and str(error.instance).isdigit()
    return (
        f"{PATTERNS[str(error.validator_value)]}, is {shown(error.instance)}",
        "write the number without quotes" if number else "",
    )


def _missing(
    error: ValidationError, path: FieldPath, schema: Mapping[str, object], report: Report
) -> None:
    instance = mapping(error.instance)
    known = mapping(schema.get("properties"))
    unknown = [key for key in instance if key not in known]
    for name in map(str, items(error.validator_value)):
        like = nearest(name, unknown)
        if name in instance or (like and schema.get("additionalProperties") is False):
            continue  # the misspelt field is a problem of its own
        what = text(mapping(known.get(name)).get("description")).partition(". ")[0].rstrip(".")
        report.add((*path, name), "is missing", f"{like} is meant?" if like else what)


def _unknown(
    error: ValidationError,
    path: FieldPath,
    schema: Mapping[str, object],
    report: Report,
    places: Mapping[str, list[str]],
) -> None:
    known = list(mapping(schema.get("properties")))
    for name in mapping(error.instance):
        if name in known:
            continue
        if like := nearest(name, [k for k in known if k not in mapping(error.instance)] or known):
            remedy = f"{like} is meant?"
        elif name in places:
            remedy = f"it belongs to {_either(places[name])}"
        else:
            remedy = f"{dotted(path) or 'a job'} has {', '.join(known)}"
        report.add((*path, name), "is no field that is known", remedy)


def _one_of(error: ValidationError, path: FieldPath, report: Report) -> None:
    branches = map(mapping, items(error.validator_value))
    names = [str(items(branch["required"])[0]) for branch in branches]
    given = [name for name in names if name in mapping(error.instance)]
    if given:
        report.add(path, f"has {' and '.join(given)}", f"exactly one of {', '.join(names)}")
    elif not any(nearest(name, mapping(error.instance)) for name in names):
        report.add(path, f"needs {_either(names)}")


def _bound(error: ValidationError) -> str:
    limits = {
        "minimum": "be at least {}",
        "maximum": "be at most {}",
        "exclusiveMinimum": "be more than {}",
        "maxLength": "have at most {} characters",
    }
    return f"must {limits[str(error.validator)].format(error.validator_value)}"


def _either(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
