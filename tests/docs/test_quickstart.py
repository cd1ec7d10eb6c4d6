"""The quickstart: its job, run on this machine; that what it names is there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_commands_name_is_there() -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text()
    commands = [line for line in page.splitlines() if line.startswith("    ")]
    named = set(re.findall(r"\b(?:examples|charts)/[\w./-]+", "\n".join(commands)))
    assert {"charts/crossdock", "examples/on-kubernetes/tpch-q5.yaml"} <= named
    assert not [path for path in named if not (ROOT / path).exists()]


def test_commands_say_which_namespace() -> None:
    """Else they look where nothing is: what the page makes is in a namespace of its own."""
    page = (ROOT / "docs" / "quickstart.md").read_text().replace("\\\n", "")
    commands = re.findall(r"^    ((?:kubectl|helm) .*)$", page, re.MULTILINE)
    of_no_namespace = re.compile(r"kubectl (?:create|label|delete) namespace|kubectl crossdock ui")
    assert len(commands) > 20
    assert not [
        line
        for line in commands
        if "--namespace crossdock" not in line and not of_no_namespace.match(line)
    ]


def test_the_job_of_the_quickstart_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text()
    (job,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = tmp_path / "numbers.yaml"
    file.write_text(job)
    crossdock = Path(sys.executable).with_name("crossdock")
    done = subprocess.run(
        [crossdock, "run", file], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:3] for line in done.stdout.splitlines() if line.startswith("count ")]
    assert rows == [["count", "2", "2"]], done.stdout
