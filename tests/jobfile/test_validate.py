"""`crossdock validate`, as a user calls it."""

import subprocess
import sys
from pathlib import Path

from jobs import job, shuffling, stage

from crossdock.jobfile.load import schema_text

WITHOUT = "import sys; sys.modules[{0!r}] = None; from crossdock.cli import main; main()"


def crossdock(*arguments: object, without: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line, as if the package `without` were not installed."""
    command = [str(Path(sys.executable).with_name("crossdock"))]
    if without:
        command = [sys.executable, "-c", WITHOUT.format(without)]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )


def test_a_valid_job(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(job(shuffling("a"), stage("b", "inputs: [{stage: a}]")))
    done = crossdock("validate", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}: job job is valid; stages: a, b\n"


def test_warnings_are_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(job(shuffling("a")))
    done = crossdock("validate", path)
    assert done.returncode == 0
    assert (
        done.stderr == f"{path}: warning: no stage reads the shuffle of a: its data are dropped\n"
    )


def test_everything_that_is_wrong_with_every_file(tmp_path: Path) -> None:
    bad, good, gone = tmp_path / "bad.yaml", tmp_path / "good.yaml", tmp_path / "gone.yaml"
    bad.write_text(job(stage("a", "parallelism: 0", "retries: no")))
    good.write_text(job(stage("a", "parallelism: 1")))
    done = crossdock("validate", bad, gone, good)
    assert done.returncode == 2
    assert done.stdout == f"{good}: job job is valid; stages: a\n"
    assert done.stderr.splitlines() == [
        f"crossdock: 2 problems in {bad}",
        f"{bad}:7: spec.stages[0].parallelism: must be at least 1, is 0",
        f"{bad}:8: spec.stages[0].retries: must be a whole number, is false",
        f"cannot read the job file {gone}: No such file or directory",
    ]


def test_the_schema_for_editors() -> None:
    assert crossdock("validate", "--print-schema").stdout == schema_text()
    done = crossdock("validate")
    assert done.returncode == 2
    assert "name a job file" in done.stderr


def test_a_missing_extra_says_how_to_install_it(tmp_path: Path) -> None:
    for package in ("yaml", "jsonschema"):
        done = crossdock("validate", tmp_path / "job.yaml", without=package)
        assert done.returncode == 2
        assert done.stderr == (
            f"crossdock: `crossdock validate` needs the package {package!r}"
            " (pip install 'crossdock[run]')\n"
        )
    # The worker's extra is called like its command.
    done = crossdock("worker", "--data-dir", tmp_path, "--insecure-no-auth", without="aiohttp")
    assert "needs the package 'aiohttp' (pip install 'crossdock[worker]')" in done.stderr
    assert crossdock("key", without="yaml").returncode == 0
    # An option that needs more than its command.
    done = crossdock(
        "audit", "--store", tmp_path.as_uri(), "--cluster", "c", "--kube", without="kubernetes"
    )
    assert done.returncode == 2
    assert "--kube needs the package 'kubernetes" in done.stderr
    assert "(pip install 'crossdock[operator]')" in done.stderr


def test_a_command_that_cannot_even_be_loaded(tmp_path: Path) -> None:
    done = crossdock("validate", "--any", "x", without="crossdock.jobfile.cli")
    assert done.returncode == 2
    assert "pip install 'crossdock[run]'" in done.stderr
