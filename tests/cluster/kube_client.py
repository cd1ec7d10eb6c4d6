"""kubectl and helm as a person uses them, against the cluster of KUBECONFIG."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

NAMESPACE: Final = "crossdock-e2e"
Object = dict[str, Any]


class Failed(Exception):
    """A command did not end with 0; the text is what it said."""


def kubectl(*args: str, given: str = "", seconds: float = 120, namespace: str = NAMESPACE) -> str:
    """Run kubectl, in the tests' namespace if in no other; return what it printed."""
    return _run(["kubectl", f"--namespace={namespace}", *args], given, seconds)


def crossdock(*args: str, seconds: float = 120) -> str:
    """Run the plugin `kubectl crossdock` in the tests' namespace; return what it printed."""
    program = Path(sys.executable).with_name("kubectl-crossdock")
    return _run([str(program), *args, f"--namespace={NAMESPACE}"], "", seconds)


def helm(*args: str, seconds: float = 300) -> str:
    """Run helm in the tests' namespace; return what it printed."""
    return _run(["helm", "--namespace", NAMESPACE, *args], "", seconds)


def apply(*objects: Mapping[str, object], namespace: str = NAMESPACE) -> None:
    """Make objects be as given."""
    items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl("apply", "--filename=-", given=json.dumps(items), namespace=namespace)


def get(kind: str, name: str = "", *, labels: str = "", namespace: str = NAMESPACE) -> Any:
    """Return an object; without a name a list of them."""
    which = [name] if name else ["--selector", labels]
    found = json.loads(kubectl("get", kind, *which, "--output=json", namespace=namespace))
    return found if name else found["items"]


def shell(pod: str, script: str) -> str:
    """Run a script in a pod; return what it printed."""
    return kubectl("exec", pod, "--", "sh", "-c", script)


def pods(labels: str, *, namespace: str = NAMESPACE) -> list[Object]:
    """Return the pods with these labels that run or are yet to run."""
    found = get("pods", labels=labels, namespace=namespace)
    return [pod for pod in found if pod["status"].get("phase") not in ("Succeeded", "Failed")]


def name_of(found: Object) -> str:
    """Return an object's name."""
    return str(found["metadata"]["name"])


def ready(pod: Object) -> bool:
    """Tell whether all containers of a pod are ready, and it is not about to go."""
    statuses = pod["status"].get("containerStatuses", ())
    going = "deletionTimestamp" in pod["metadata"]
    return bool(statuses) and all(each["ready"] for each in statuses) and not going


def report() -> str:
    """Return what a person would look at when a test failed."""
    commands = (
        ("get", "pods,jobs,shuffleclusters,shufflejobs", "--output=wide"),
        ("get", "events", "--sort-by=.lastTimestamp"),
        ("describe", "shuffleclusters,shufflejobs"),
        ("logs", "--selector=app.kubernetes.io/name=crossdock-worker", "--tail=15", "--prefix"),
        ("logs", "--selector=app.kubernetes.io/component=operator", "--tail=30", "--prefix"),
    )
    parts = []
    for command in commands:
        try:
            parts.append(f"$ kubectl {' '.join(command)}\n{kubectl(*command)}")
        except Failed as failed:
            parts.append(f"$ kubectl {' '.join(command)}\n{failed}")
    return "\n".join(parts)


def _run(command: list[str], given: str, seconds: float) -> str:
    if "KUBECONFIG" not in os.environ:
        pytest.fail("these tests need a cluster: KUBECONFIG, or `make e2e-smoke`", pytrace=False)
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout
