"""Pods that end as on a machine that is lost: SIGKILL to every process, and no word before."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from kube_client import get, kubectl
from objects import VOLUMES

NOW = ("--grace-period=0", "--force")


def kill(pod: str) -> None:
    """Kill all processes of a pod. What has `restartPolicy: Always` is started again in its pod."""
    if VOLUMES is None:
        pytest.skip("processes of another cluster's node are out of reach")
    statuses = get("pod", pod)["status"]["containerStatuses"]
    containers = {each["containerID"].rpartition("/")[2] for each in statuses}
    found = Path("/proc").glob("[0-9]*")
    processes = [process for process in found if _containers(process) & containers]
    assert processes, f"no process is {pod}'s"
    for process in processes:
        with suppress(ProcessLookupError):  # with the first process of a container go the others
            os.kill(int(process.name), signal.SIGKILL)


def lose(*pods: str) -> None:
    """Kill pods, and remove them: nobody starts them again, and with them go their disks."""
    for pod in pods:
        if VOLUMES is not None:  # on another cluster they get SIGTERM, and a second
            kill(pod)
    kubectl("delete", "pods", *pods, *NOW)


def exit_code(pod: str) -> int:
    """Return how the container that ran before the present one ended."""
    (status,) = get("pod", pod)["status"]["containerStatuses"]
    return int(status["lastState"]["terminated"]["exitCode"])


def _containers(process: Path) -> set[str]:
    """Return the ids of the containers that a process is in, as its control groups tell."""
    try:
        groups = (process / "cgroup").read_text().splitlines()
    except OSError:  # it is gone
        return set()
    return {group.rpartition("/")[2] for group in groups}
