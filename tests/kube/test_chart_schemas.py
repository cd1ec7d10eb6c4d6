"""Every object of the chart, held strictly against the schemas of its kind, by kubeconform."""

import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from administrator import Administrator
from rendering import CI, text
from schemas import LOCATION, write_schemas

import build_servers

HERE: Final = Path(__file__).parent
MONITORING: Final = (HERE / "servicemonitors.yaml", HERE / "prometheusrules.yaml")


@pytest.fixture(scope="module")
def schemas(plane: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the schemas of the API server of the tests."""
    directory = tmp_path_factory.mktemp("schemas")
    write_schemas(directory, Administrator(plane), *MONITORING)
    return directory


@pytest.mark.parametrize("values", CI, ids=CI)
def test_every_object_is_as_its_kind_says(schemas: Path, values: str) -> None:
    manifests = text(CI[values])
    done = _kubeconform(schemas, manifests)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"Summary: {len(_kinds(manifests))} resources found")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("replicas: 2", "replicas: two", "got string, want integer"),
        ("replicas: 2", "replica: 2", "additional properties 'replica' not allowed"),
        ("interval: 30s", "intervall: 30s", "additional properties 'intervall' not allowed"),
        ("expr: ", "exprs: ", "missing property 'expr'"),
    ],
)
def test_a_wrong_object_is_told(schemas: Path, right: str, wrong: str, said: str) -> None:
    on = {"enabled": True}
    manifests = text({"monitoring": {"serviceMonitor": on, "rules": on}})
    assert right in manifests
    done = _kubeconform(schemas, manifests.replace(right, wrong))
    assert done.returncode == 1
    assert said in done.stdout


def _kubeconform(schemas: Path, manifests: str) -> "subprocess.CompletedProcess[str]":
    program = build_servers.cached("kubeconform")
    if not program.exists():
        pytest.fail(f"{program} is not built; `make chart-programs` does it", pytrace=False)
    return subprocess.run(
        [str(program), "-strict", "-summary", "-n=1", f"-schema-location={schemas}/{LOCATION}"],
        input=manifests, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def _kinds(manifests: str) -> list[str]:
    return [line for line in manifests.splitlines() if line.startswith("kind: ")]
