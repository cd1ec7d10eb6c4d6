"""The servers that the tests of the operator stand on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from administrator import Administrator
from control_plane import ControlPlane

from harness import eventually

HERE = Path(__file__).parent
_BOOT = """
import pathlib, signal, sys
from control_plane import control_plane
with control_plane(pathlib.Path(sys.argv[1])) as plane:
    print(*plane.pids, flush=True)
    signal.pause()
"""


def test_it_is_kubernetes(admin: Administrator) -> None:
    assert admin.ask("GET", "/version")["major"] == "1"


@pytest.mark.usefixtures("_controllers")
def test_controllers_clear_a_namespace(admin: Administrator, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}"
    admin.ask("POST", f"{path}/configmaps", {"metadata": {"name": "a"}, "data": {"a": "b"}})
    admin.ask("DELETE", path)
    eventually(lambda: admin.get(path) is None, what="the namespace to be gone")


def test_nothing_outlives_who_started_it(plane: ControlPlane, tmp_path: Path) -> None:
    """Even if that one is killed."""
    command = [sys.executable, "-c", _BOOT, str(tmp_path)]
    path = f"{HERE}:{HERE.parent}"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as starter:
        assert starter.stdout is not None
        pids = [int(word) for word in starter.stdout.readline().split()]
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    assert len(pids) == 2
    assert not plane.pids & set(pids)
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids), what="the servers' end")
