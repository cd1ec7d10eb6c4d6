"""The repository's layout: a folder called operator must not shadow the standard library's."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["client", "worker", "operator"]
MAX_LINES = 400


@pytest.mark.parametrize("folder", FOLDERS)
def test_source_folders_are_no_packages(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


def test_operator_is_the_standard_library_s() -> None:
    code = (
        "import operator, pathlib, crossdock, crossdock_worker, crossdock_operator;"
        "assert operator.add(1, 2) == 3;"
        "print(pathlib.Path(operator.__file__).resolve())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert not Path(done.stdout.strip()).is_relative_to(ROOT / "operator")


def test_every_package_is_typed() -> None:
    for package in ("client/crossdock", "worker/crossdock_worker", "operator/crossdock_operator"):
        assert (ROOT / package / "py.typed").is_file(), package


def test_files_stay_short() -> None:
    files = [f for folder in FOLDERS for f in (ROOT / folder).rglob("*.py")]
    assert len(files) > 20
    long = {}
    for file in files:
        lines = len(file.read_text().splitlines())
        if lines > MAX_LINES:
            long[str(file.relative_to(ROOT))] = lines
    assert not long, f"files with more than {MAX_LINES} lines: {long}"


def test_modules_of_tests_have_names_of_their_own() -> None:
    """Folders of tests are no packages: pytest refuses to collect two of one name."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
