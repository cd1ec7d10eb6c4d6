"""The node itself: it goes without a trace whatever was killed, and says why it is not ready."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from harness import eventually

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif("KUBECONFIG" in os.environ, reason="another cluster is to be tested"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a node is root's"),
]
CLUSTER: Final = Path(__file__).with_name("cluster")
KILLS: Final = 5
LATEST_SECONDS: Final = 9.0


def test_a_node_that_was_killed_at_any_point_comes_up_and_goes_without_a_trace(
    tmp_path: Path,
) -> None:
    state = tmp_path / "node"
    seed = int(os.environ.get("CROSSDOCK_SEED", str(random.randrange(2**32))))
    print(f"replay with CROSSDOCK_SEED={seed}")
    chosen = random.Random(seed)
    _run("down", state)
    before = _machine()
    try:
        for _ in range(KILLS):
            command = _start("up", state)
            time.sleep(chosen.uniform(0, LATEST_SECONDS))  # any point is the point
            command.kill()
            command.communicate()
        assert "Ready" in _run("up", state)
        assert "Ready" in _run("run", state, "kubectl", "get", "nodes")
    finally:
        _run("down", state)
    assert _machine() == before
    assert not state.exists()


def test_a_node_that_does_not_get_ready_is_an_error_with_the_last_lines(tmp_path: Path) -> None:
    state = tmp_path / "node"
    command = _start("up", state)
    try:
        pid = state / "node.pid"
        eventually(lambda: pid.exists() and pid.read_text().strip(), seconds=60)
        eventually((state / "log" / "etcd.log").exists, seconds=60)
        os.kill(int(pid.read_text()), signal.SIGKILL)
        said = command.communicate(timeout=60)[0]
    finally:
        command.kill()
        command.communicate()
        _run("down", state)
    assert command.returncode == 1
    assert "did not get ready" in said
    assert "log/etcd.log <==" in said


def _start(verb: str, state: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(CLUSTER), verb, *args],
        env={**os.environ, "CROSSDOCK_CLUSTER_STATE": str(state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _run(verb: str, state: Path, *args: str) -> str:
    command = _start(verb, state, *args)
    said = command.communicate(timeout=300)[0]
    assert command.returncode == 0, said
    return said


def _machine() -> dict[str, list[str]]:
    """Return what a node may leave on this machine; of processes those that are a node's parts."""
    asked = {
        "processes": "ps -eo args | grep -E 'containerd|kubelet|kube-|etcd|coredns' | grep -v grep",
        "mounts": "cut -d' ' -f2 /proc/mounts",
        "links": "ip -o link | cut -d: -f2",
        "namespaces": "ip netns",
        "packet filter": "iptables-save | grep -v '^#'",
        "cgroups": "find /sys/fs/cgroup -type d -name 'kubepods*'",
        "settings": "sysctl kernel.panic kernel.panic_on_oops vm.overcommit_memory",
    }
    return {
        what: subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, check=False
        ).stdout.splitlines()
        for what, command in asked.items()
    }
