"""Job files of the tests."""

import pytest

from crossdock.errors import JobFileError
from crossdock.jobfile.load import loads
from crossdock.jobfile.model import ShuffleJob

POD = "podTemplate: {spec: {containers: [{command: [python, x.py]}]}}"
HEAD = "apiVersion: crossdock.dev/v1alpha1\nkind: ShuffleJob\nmetadata: {name: job}\n"


def stage(name: str, *lines: str, output: str = "{files: out/%s}", pod: str = POD) -> str:
    """Return a stage, three lines with the given ones between the name and the pod template."""
    output = output.replace("%s", name)
    body = [f"- name: {name}", *lines, pod, f"output: {output}"]
    return "".join(f"  {line}\n" if n == 0 else f"    {line}\n" for n, line in enumerate(body))


def shuffling(name: str, *lines: str, partitions: int = 4) -> str:
    """Return a stage of two tasks with a shuffle."""
    rest = lines or ("parallelism: 2",)
    return stage(name, *rest, output=f"{{shuffle: {{partitions: {partitions}}}}}")


def job(*stages: str, spec: str = "") -> str:
    """Return a job file. Its first stage begins in line 6, or later by the lines of `spec`."""
    return f"{HEAD}spec:\n{spec}  stages:\n{''.join(stages)}"


def load(*stages: str, spec: str = "") -> ShuffleJob:
    """Return a job of these stages."""
    return loads(job(*stages, spec=spec), source="job.yaml")


def problems(text: str) -> list[str]:
    """Return what is wrong with a file, without the file's name."""
    with pytest.raises(JobFileError) as caught:
        loads(text, source="job.yaml")
    return [str(p).removeprefix("job.yaml:") for p in caught.value.problems]
