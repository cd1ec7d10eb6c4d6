"""Helm, as far as tests need it: what a chart becomes with some values."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

import build_servers

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "crossdock"
RELEASE: Final = "rel"
NAMESPACE: Final = "shuffling"
Object = dict[str, Any]
CI: Final[Mapping[str, Object]] = {
    path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text())
    for path in sorted((CHART / "ci").glob("*-values.yaml"))
}
"""Typical values, by name of their file."""


def helm(
    *args: str, values: Mapping[str, object] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run helm; values come by standard input."""
    program = build_servers.cached("helm")
    if not program.exists():
        pytest.fail(f"{program} is not built; `make chart-programs` does it", pytrace=False)
    given = [] if values is None else ["--values", "-"]
    return subprocess.run(
        [str(program), *args, *given], input=json.dumps(values or {}), capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip


def text(values: Mapping[str, object] | None = None, *more: str) -> str:
    """Return the manifests as helm prints them."""
    done = helm(
        "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.34.2",
        *more, values=values or {},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(values: Mapping[str, object] | None = None) -> list[Object]:
    """Return all objects of the chart, hooks and tests too."""
    return [each for each in yaml.safe_load_all(text(values)) if each]


def refused(values: Mapping[str, object]) -> str:
    """Return why values are not taken."""
    done = helm(
        "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.34.2",
        values=values,
    )  # fmt: skip
    assert done.returncode != 0, "helm took it"
    return done.stderr


def of(objects: list[Object], kind: str, name: str = "") -> list[Object]:
    """Return the objects of a kind, and of a name if there is one."""
    return [o for o in objects if o["kind"] == kind and name in {"", o["metadata"]["name"]}]


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    """Return the only object of a kind."""
    (found,) = of(objects, kind, name)
    return found
