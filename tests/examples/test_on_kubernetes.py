"""The examples' files for a cluster are those for one machine, with what pods need."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import tooling

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return tooling.tool("examples")


def test_the_files_are_those_that_the_tool_makes(tool: ModuleType) -> None:
    """Else: `make examples`."""
    by_hand = {"results.yaml"}
    there = {p.name: p.read_text() for p in tool.MADE.iterdir() if p.name not in by_hand}
    assert there == tool.made()


def test_every_job_file_has_one_for_a_cluster(tool: ModuleType) -> None:
    plain = {str(path.relative_to(EXAMPLES)) for path in _job_files()}
    assert plain == set(tool.JOBS.values())


def test_a_cluster_runs_the_stages_of_the_plain_file(tool: ModuleType) -> None:
    for name, source in tool.JOBS.items():
        plain = yaml.safe_load((EXAMPLES / source).read_text())
        made = yaml.safe_load((tool.MADE / f"{name}.yaml").read_text())
        assert made["spec"].pop("dataRoot") == f"/data/{name}"
        for one, other in zip(plain["spec"]["stages"], made["spec"]["stages"], strict=True):
            ours, theirs = one.pop("podTemplate"), other.pop("podTemplate")
            assert _program(ours) == _program(theirs)
            assert one == other
        assert plain["spec"] == made["spec"]


def test_an_example_that_the_tool_does_not_understand_is_refused(tool: ModuleType) -> None:
    plain = (EXAMPLES / "wordcount" / "job.yaml").read_text()
    with pytest.raises(ValueError, match="not once in the example"):
        tool.job("twice", plain + plain, "wordcount/job.yaml")


def test_images_have_the_tag_of_the_version() -> None:
    """Without a tag the latest is pulled, whatever the node has."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    files = [*EXAMPLES.rglob("*.yaml"), EXAMPLES / "Dockerfile", ROOT / "Dockerfile"]
    files += [*(ROOT / "docs").glob("*.md")]
    named = {
        name
        for path in files
        for name in re.findall(r"\bcrossdock/(?:crossdock|examples)\b(?![/.]\w)\S*", _of(path))
    }
    assert named == {f"crossdock/crossdock:{version}", f"crossdock/examples:{version}"}


def _of(path: Path) -> str:
    return re.sub(r"`", " ", path.read_text())


def _job_files() -> Iterator[Path]:
    for path in EXAMPLES.rglob("*.yaml"):
        if path.parent.name not in {"on-kubernetes", "attached", "s3"}:
            yield path


def _program(template: dict[str, dict[str, list[dict[str, object]]]]) -> tuple[object, object]:
    (container,) = template["spec"]["containers"]
    return container["image"], container["command"]
