"""The documents say what the code does: routes, codes, options, the README's example, links."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import crossdock
from crossdock import errors
from crossdock_worker import cli as worker_cli
from crossdock_worker.routes import ROUTES, Route
from harness import eventually

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)


def text(name: str) -> str:
    return (ROOT / name).read_text()


def table_rows(name: str, section: str) -> list[list[str]]:
    """Return the cells of every table row of a document's section."""
    body = text(name).partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def classes(base: type[errors.CrossdockError]) -> list[type[errors.CrossdockError]]:
    return [base, *(c for sub in base.__subclasses__() for c in classes(sub))]


ERRORS = {c.code: c for c in classes(errors.CrossdockError) if c.__module__ == errors.__name__}
GROUPS = {"access", "gone", "conflict", "attempts_missing"}
"""Codes that are only raised as one of their members."""


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.template}")
def test_protocol_has_every_route(route: Route) -> None:
    shuffle = "/v1/jobs/{job}/shuffles/{shuffle}/{generation}"
    rights = {
        re.sub("^S", shuffle, path.strip("`")): right.strip("`")
        for method, path, right, _ in table_rows("docs/protocol.md", "Routes")
        if method == route.method
    }
    assert route.template in rights, f"{route.method} {route.template} is in no table of routes"
    assert rights[route.template] == (route.right.value if route.right else "none")
    if route.template.startswith(shuffle):
        assert f"`{route.template}`" in text("docs/protocol.md")


@pytest.mark.parametrize("kind", [*ERRORS.values()], ids=lambda c: c.code)
def test_every_error_code_is_documented(kind: type[errors.CrossdockError]) -> None:
    rows = {r[0]: r for r in table_rows("docs/protocol.md", "Errors")}
    if kind.code in GROUPS:
        assert f"`{kind.code}` ({kind.status})" in " ".join(text("docs/protocol.md").split())
    else:
        assert rows[f"`{kind.code}`"][1] == str(kind.status)
    assert f"| `{kind.code}` |" in text("docs/operations.md"), "no remedy in Troubleshooting"


def test_operations_has_every_option_of_the_worker() -> None:
    app = typer.Typer(add_completion=False)
    app.command()(worker_cli.worker)
    documented = {row[0].strip("`") for row in table_rows("docs/operations.md", "Settings")}
    options = {p.opts[0] for p in typer.main.get_command(app).params}
    assert options - {"--help"} == documented - {"option", "---"}


def readable(value: object) -> str:
    """Return a default as the documents write it."""
    if isinstance(value, int) and value and value % 2**20 == 0:
        return f"{value // 2**20} MiB"
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


def test_operations_has_every_option_of_the_client() -> None:
    documented = {row[0].strip("`"): row[1] for row in table_rows("docs/operations.md", "Client")}
    for field in dataclasses.fields(crossdock.Options):
        assert documented.get(field.name) == readable(field.default), field.name


def test_operations_has_the_workers_limits_and_defaults() -> None:
    documented = {r[0].strip("`"): r[1] for r in table_rows("docs/operations.md", "Settings")}
    for field in dataclasses.fields(worker_cli.Limits):
        written = documented[f"--{field.name.replace('_', '-')}"].replace(",", "")
        assert written == readable(field.default), field.name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{target} is no file"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
            assert anchor in anchors, f"{target} is no heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_lines_are_short(path: Path) -> None:
    long = [n for n, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 110]
    assert not long, f"lines {long}"


def test_the_readme_shows_the_example() -> None:
    assert f"```python\n{text('examples/quickstart.py')}```" in text("README.md")


def test_the_readmes_quick_start_works(tmp_path: Path) -> None:
    """The commands and the example as written, but for the data directory and the port."""
    readme = text("README.md")
    line = re.search(r"^ {4}\.venv/bin/(crossdock worker .*)$", readme, re.MULTILINE)
    printed = re.search(r"^```text\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert line is not None
    assert printed is not None
    command = shlex.split(line[1].replace("/tmp/crossdock-data", str(tmp_path / "data")))  # noqa: S108
    command[0] = str(Path(sys.executable).with_name("crossdock"))
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        worker = subprocess.Popen([*command, "--listen", "127.0.0.1:0"], stderr=stderr)
    try:
        ready = eventually(lambda: _ready(log), what="the worker's start")
        example = text("examples/quickstart.py").replace("http://127.0.0.1:7070", ready)
        done = subprocess.run(
            [sys.executable, "-c", example],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        worker.terminate()
        worker.wait(60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed[1]


def _ready(log: Path) -> str:
    for line in log.read_text().splitlines():
        if line.startswith("{") and (event := json.loads(line))["event"] == "worker is ready":
            return str(event["url"])
    return ""


@pytest.mark.parametrize("package", ["client/crossdock", "worker/crossdock_worker"])
def test_architecture_has_every_module(package: str) -> None:
    listed = " ".join(row[0] for row in table_rows("docs/architecture.md", "Layout"))
    for module in (ROOT / package).iterdir():
        if module.suffix == ".py" and not module.name.startswith("_"):
            assert f"`{module.name}`" in listed, module.name


def test_promises_have_tests() -> None:
    for _, folders in table_rows("docs/architecture.md", "Promises")[2:]:
        for folder in folders.split(", "):
            found = (ROOT / folder).is_file() or list((ROOT / "tests" / folder).glob("test_*.py"))
            assert found, folder


def test_a_benchmark_does_not_stand_in_for_the_standard_library() -> None:
    """Those beside `benchmarks/operator.py` import modules that import `operator`."""
    code = "import operator; print(operator.add(2, 3), operator.__file__)"
    path = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); "
    done = subprocess.run(
        [sys.executable, "-S", "-c", path + "sys.modules.pop('operator', 0); " + code],
        capture_output=True,
        text=True,
        check=True,
    )
    answer, _, file = done.stdout.strip().partition(" ")
    assert answer == "5"
    assert not file.startswith(str(ROOT / "benchmarks"))
