"""The part of a pod template that a process can honour, and what is left over."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from crossdock.jobfile.expansion import expand
from crossdock.jobfile.values import items, mapping, text

_PLAIN: Final = frozenset({"name", "command", "args", "env", "workingDir"})
_EXPECTED: Final = frozenset({"image", "imagePullPolicy"})
"""What a pod needs and a process can do without: no word on it."""
_POD_PLAIN: Final = frozenset({"containers", "restartPolicy", "imagePullSecrets"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """How to start a task, as the job file has it."""

    command: tuple[str, ...]
    """Program and arguments: the container's command, then its args."""
    variables: tuple[tuple[str, str], ...]
    """Environment variables with a plain value, in their order."""
    working_dir: str | None

    @property
    def env(self) -> Mapping[str, str]:
        """Return the variables; of one that comes twice, the last."""
        return dict(self.variables)

    def expanded(self, given: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """Return command and env with `$(NAME)` replaced as in a pod.

        A variable may name those above it; the command may name all, and what is given.

        Args:
            given: variables that every task of a job has.
        """
        env: dict[str, str] = {}
        for name, value in self.variables:
            env[name] = expand(value, env)
        known = {**given, **env}
        return [expand(part, known) for part in self.command], env


def container_of(pod_template: Mapping[str, object]) -> Container:
    """Return what the template's first container says of the task."""
    first = _first(pod_template)
    command = [*items(first.get("command")), *items(first.get("args"))]
    variables = [mapping(v) for v in items(first.get("env"))]
    return Container(
        command=tuple(map(str, command)),
        variables=tuple(
            (str(v.get("name")), str(v.get("value", ""))) for v in variables if "valueFrom" not in v
        ),
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
    for n, variable in enumerate(map(mapping, items(container.get("env")))):
        if "valueFrom" in variable:
            yield f"env[{n}].valueFrom"


def _given(value: object) -> bool:
    return value is not None and value not in ({}, [])
