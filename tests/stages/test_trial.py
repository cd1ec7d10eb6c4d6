"""The job of `helm test`, run here: it succeeds where all is read, and nowhere else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossdock_operator.trial import trial_job


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (("", ""), 0),
        (("range(task.output.partitions)", "range(task.output.partitions - 1)"), 1),
        (("range(task.output.partitions)", "range(task.index, task.output.partitions)"), 1),
    ],
    ids=["as it is", "a partition is missing", "a block is missing"],
)
def test_the_trial_reads_exactly_what_was_written(
    tmp_path: Path, wrong: tuple[str, str], code: int
) -> None:
    job = json.loads(json.dumps(trial_job("release", "default", "image")))  # nothing is shared
    command = job["spec"]["stages"][0]["podTemplate"]["spec"]["containers"][0]["command"]
    right, changed = wrong
    assert right in command[2]
    command[2] = command[2].replace(right, changed) if right else command[2]
    path = tmp_path / "job.json"
    head = {"apiVersion": "crossdock.dev/v1alpha1", "kind": "ShuffleJob"}
    path.write_text(json.dumps({**head, **job}))
    done = subprocess.run(
        [sys.executable, "-m", "crossdock", "run", str(path)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    assert ("it did not read exactly what was written" in done.stderr) == bool(code)
