"""Job files → `ShuffleJob`. Needs the extra `run`: PyYAML and jsonschema.

job = load("job.yaml")      # or JobFileError: all problems, each with its line and field
"""

import functools
import json
import os
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from crossdock.errors import ConfigError
from crossdock.jobfile.build import build
from crossdock.jobfile.checks import check
from crossdock.jobfile.document import read_job
from crossdock.jobfile.explain import explain, fields
from crossdock.jobfile.model import ShuffleJob
from crossdock.jobfile.quantity import parse_bytes
from crossdock.jobfile.report import Report

MAX_FILE_BYTES: Final = 2**20
"""Largest job file. Kubernetes takes little more."""


def load(path: str | os.PathLike[str]) -> ShuffleJob:
    """Return the job that a file describes.

    Raises:
        JobFileError: The file is wrong; `problems` has everything that is.
        ConfigError: It cannot be read, or is too large.
    """
    source = os.fspath(path)
    try:
        with open(source, "rb") as file:  # noqa: PTH123 -- the name as the user wrote it
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the job file {source}: {error.strerror}") from error
    try:
        return loads(data.decode("utf-8"), source=source)
    except UnicodeDecodeError as error:
        report = Report(source)
        line = data.count(b"\n", 0, error.start) + 1
        report.add((), "is not UTF-8", "save it in that encoding", line=line)
        report.raise_if_any()
        raise


def loads(text: str, *, source: str = "job file") -> ShuffleJob:
    """Return the job that a text describes; errors call the text `source`.

    Raises:
        JobFileError: The text is wrong; `problems` has everything that is.
        ConfigError: It is too large.
    """
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{source} is larger than {MAX_FILE_BYTES} bytes")
    report = Report(source)
    document = read_job(text, report)
    if document is not None:
        _validate(document, report)
        check(document, report)
    report.raise_if_any()
    assert document is not None, "read_job says why there is none"
    return build(document, for_clusters=_for_clusters())


@functools.cache
def schema_text() -> str:
    """Return the JSON schema of a job file, for editors."""
    return resources.files("crossdock.jobfile").joinpath("schema.json").read_text("utf-8")


def _validate(document: dict[str, Any], report: Report) -> None:
    errors = list(_validator().iter_errors(document))
    wrong_type = {tuple(e.absolute_path) for e in errors if e.validator == "type"}
    for error in errors:
        # Of the wrong type, a value breaks other rules too: saying it once is enough.
        if error.validator == "type" or tuple(error.absolute_path) not in wrong_type:
            explain(error, report, _places())


@functools.cache
def _for_clusters() -> frozenset[str]:
    """Return the names of the spec's fields that the schema marks as a cluster's alone."""
    spec = json.loads(schema_text())["properties"]["spec"]["properties"]
    return frozenset(name for name, field in spec.items() if "x-cluster" in field)


@functools.cache
def _validator() -> Validator:
    formats = FormatChecker(formats=())
    formats.checks("quantity", raises=ConfigError)(_is_quantity)
    kind: type[Validator] = extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": _pattern}
    )
    return kind(json.loads(schema_text()), format_checker=formats)


@functools.cache
def _places() -> dict[str, list[str]]:
    """Return for each field's name the mappings that have it."""
    places: dict[str, list[str]] = {}
    for path, _ in fields(json.loads(schema_text())):
        above, _, name = path.rpartition(".")
        places.setdefault(name, []).append(above or "the document")
    return places


def _is_quantity(value: object) -> bool:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        parse_bytes(value)
    return True


def _pattern(
    _validator: Any, pattern: str, instance: object, _schema: object
) -> Iterator[ValidationError]:
    """Match whole texts: `$` alone would let a newline at the end through."""
    if isinstance(instance, str) and not re.fullmatch(pattern, instance, re.ASCII):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")
