"""docs/job-file.md has every field of the schema with its default, and its example loads."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from crossdock.jobfile.advice import warnings
from crossdock.jobfile.explain import fields
from crossdock.jobfile.load import loads, schema_text
from crossdock.jobfile.model import FilesInput, PlanSettings, ShuffleOutput, Stage, StageInput
from crossdock.jobfile.quantity import parse_bytes

DOCUMENT = Path(__file__).parents[2] / "docs/job-file.md"
FIELDS = dict(fields(json.loads(schema_text())))
SECTIONS = {
    "The document": "",
    "A stage": "spec.stages[].",
    "An input": "spec.stages[].inputs[].",
    "The pod template": "spec.stages[].podTemplate.",
}


def documented() -> dict[str, str]:
    """Return every field of the tables with its default as it is written."""
    found = {}
    for section, prefix in SECTIONS.items():
        body = DOCUMENT.read_text().partition(f"\n### {section}\n")[2]
        body = re.split(r"^##", body, maxsplit=1, flags=re.MULTILINE)[0]
        for field, default in re.findall(r"^\| `([^`]+)` \| (.*?) ?\| ", body, re.MULTILINE):
            assert prefix + field not in found
            found[prefix + field] = default.strip("`")
    return found


def required() -> set[str]:
    """Return the paths of fields that the schema or a check demands."""
    root = json.loads(schema_text())
    parents = {"": root, **{p: f for p, f in FIELDS.items() if "properties" in f}}
    parents |= {f"{p}[]": f["items"] for p, f in FIELDS.items() if "items" in f}
    paths = {
        f"{path}.{name}".removeprefix(".")
        for path, field in parents.items()
        for name in field.get("required", [])
    }
    return {*paths, "spec.stages[].podTemplate.spec.containers[].command"}


def test_every_field_is_documented() -> None:
    assert set(documented()) == set(FIELDS)


@pytest.mark.parametrize("path", FIELDS)
def test_defaults(path: str) -> None:
    written = documented()[path]
    assert (written == "required") == (path in required())
    if "default" in FIELDS[path]:
        default = FIELDS[path]["default"]
        assert written == (default if isinstance(default, str) else json.dumps(default))


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_has_a_description_for_editors(path: str) -> None:
    assert str(FIELDS[path].get("description", "")).endswith((".", "it."))


def test_the_defaults_of_the_schema_are_those_of_the_model() -> None:
    def default(field: str) -> object:
        return FIELDS[f"spec.stages[].{field}"]["default"]

    model = {f.name: f.default for c in (Stage, StageInput, ShuffleOutput) for f in
             dataclasses.fields(c)}  # fmt: skip
    plan = PlanSettings()
    assert parse_bytes(str(default("plan.targetTaskSize"))) == plan.target_task_bytes
    assert parse_bytes(str(default("plan.skewFloor"))) == plan.skew_floor_bytes
    assert default("plan.skewFactor") == plan.skew_factor
    assert default("plan.maxTasks") == plan.max_tasks
    assert default("retries") == model["retries"]
    assert default("output.shuffle.compression") == model["compression"]
    assert default("inputs[].split") is model["split"]
    assert (default("inputs[].read") == "All") is model["read_all"]
    assert (default("parallelism"), model["parallelism"]) == ("auto", None)


def test_the_example_loads() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    job = loads(example, source="docs/job-file.md")
    assert warnings(job) == []
    assert [up.name for up in job.upstream(job.stage("revenue"))] == ["customers", "orders"]
    assert job.stage("orders").inputs == (FilesInput(name="files", files="orders/*.parquet"),)
    unused = [
        path.rpartition(".")[2].removesuffix("[]")
        for path, field in FIELDS.items()
        if "x-cluster" not in field and f"{path.rpartition('.')[2]}:" not in example
    ]
    assert unused == [], "the example shows every field that a run honours"
