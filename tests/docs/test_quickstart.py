"""The job of the quickstart, on this machine: the same file as on a cluster."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_job_of_the_quickstart_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text()
    (job,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = tmp_path / "numbers.yaml"
    file.write_text(job)
    crossdock = Path(sys.executable).with_name("crossdock")
    done = subprocess.run(
        [crossdock, "run", file], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:3] for line in done.stdout.splitlines() if line.startswith("count ")]
    assert rows == [["count", "2", "2"]], done.stdout
