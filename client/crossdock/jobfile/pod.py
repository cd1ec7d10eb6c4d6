"""The part of a pod template that a process can honour, and what is left over."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from crossdock.jobfile.values import items, mapping, text

_PLAIN: Final = frozenset({"name", "command", "args", "env", "workingDir"})
_EXPECTED: Final = frozenset({"image", "imagePullPolicy"})
"""What a pod needs and a process can do without: no word on it."""
_POD_PLAIN: Final = frozenset({"containers", "restartPolicy", "imagePullSecrets"})
_REFERENCE: Final = re.compile(r"(?<!\$)\$\([A-Za-z_][A-Za-z0-9._-]*\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """How to start a task."""

    command: tuple[str, ...]
    """Program and arguments: the container's command, then its args."""
    env: Mapping[str, str]
    """Variables with a plain value."""
    working_dir: str | None
    """As the job file has it."""


def container_of(pod_template: Mapping[str, object]) -> Container:
    """Return what the template's first container says of the task."""
    first = _first(pod_template)
    command = [*items(first.get("command")), *items(first.get("args"))]
    variables = [mapping(v) for v in items(first.get("env"))]
    return Container(
        command=tuple(map(str, command)),
        env={
            str(v.get("name")): str(v.get("value", "")) for v in variables if "valueFrom" not in v
        },
        working_dir=text(first.get("workingDir")) or None,
    )


def left_over(pod_template: Mapping[str, object]) -> list[str]:
    """Return the fields that a process cannot honour, as paths below the template.

    The image is expected to be of no use, and metadata only describes: both are not listed.
    Neither are fields that are empty.
    """
    spec = mapping(pod_template.get("spec"))
    return [
        *(f"spec.{name}" for name in spec if name not in _POD_PLAIN and _given(spec[name])),
        *(f"spec.containers[0].{field}" for field in _of_container(_first(pod_template))),
        *(f"spec.containers[{n}]" for n in range(1, len(items(spec.get("containers"))))),
    ]


def _first(pod_template: Mapping[str, object]) -> Mapping[str, object]:
    return mapping(items(mapping(pod_template.get("spec")).get("containers"))[0])


def _of_container(container: Mapping[str, object]) -> Iterator[str]:
    for name, value in container.items():
        if name not in _PLAIN | _EXPECTED and _given(value):
            yield name
    for name in ("command", "args"):
        for n, argument in enumerate(items(container.get(name))):
            for reference in _REFERENCE.findall(str(argument)):
                yield f"{name}[{n}] {reference}"
    for n, variable in enumerate(map(mapping, items(container.get("env")))):
        if "valueFrom" in variable:
            yield f"env[{n}].valueFrom"
        for reference in _REFERENCE.findall(str(variable.get("value", ""))):
            yield f"env[{n}] {reference}"


def _given(value: object) -> bool:
    return value is not None and value not in ({}, [])
