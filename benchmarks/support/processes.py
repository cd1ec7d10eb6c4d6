"""Real worker processes and the bare baseline, started and ended for a benchmark."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crossdock.wire import tokens

HERE = Path(__file__).parent.parent


@dataclass(frozen=True)
class WorkerProcess:
    url: str
    pid: int
    token: str

    @property
    def memory_bytes(self) -> int:
        """Anonymous and shared memory of the process; mapped log files are page cache."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in status.splitlines())
        return sum(int(lines[k].split()[0]) for k in ("RssAnon", "RssShmem")) * 1024


@contextmanager
def worker(directory: Path, *options: str) -> Iterator[WorkerProcess]:
    """Run a worker with authentication on a free port."""
    directory.mkdir(parents=True, exist_ok=True)
    key_file = directory / "key"
    key_file.write_text("benchmark " * 8)
    command = [
        sys.executable, "-c", "from crossdock.cli import main; main()", "worker",
        "--data-dir", str(directory / "data"), "--listen", "127.0.0.1:0",
        "--key-file", str(key_file), *options,
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        events = {"worker is ready"} | ({"store is there"} if "--store" in options else set())
        seen: dict[str, dict[str, str]] = {}
        for line in process.stderr:
            if line.startswith("{"):
                event = json.loads(line)
                seen[event["event"]] = event
                if events <= seen.keys():
                    break
        else:
            raise RuntimeError("the worker did not start")
        url = seen["worker is ready"]["url"]
        key = tokens.parse_keys(key_file.read_text())[0]
        token = tokens.mint(key, job="bench")
        yield WorkerProcess(url, process.pid, token)
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


@contextmanager
def bare(directory: Path) -> Iterator[int]:
    """Run the bare server; yields its port."""
    directory.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "support.bare", str(directory / "file")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
