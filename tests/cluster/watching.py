"""What happened to pods, in the order in which the API server told it."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from kube_client import NAMESPACE, Object, kubectl

from harness import eventually

_PATHS: Final = {"pods": "/api/v1", "deployments": "/apis/apps/v1"}


@dataclass(slots=True)
class Watch:
    """Every event of some objects since it began."""

    events: list[tuple[str, Object]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    """When each was told, in seconds of this machine's clock."""

    def at_birth(self, labels: dict[str, str]) -> list[set[str]]:
        """Return, for each pod with these labels, the names of all that ran when it came."""
        alive: dict[str, Object] = {}
        born: set[str] = set()
        found = []
        for kind, pod in self.events:
            name = pod["metadata"]["name"]
            if name not in born:
                born.add(name)
                if labels.items() <= pod["metadata"]["labels"].items():
                    found.append(set(alive))
            alive[name] = pod
            if kind == "DELETED" or pod["status"].get("phase") in ("Succeeded", "Failed"):
                alive.pop(name)
        return found

    def alive(self) -> set[str]:
        """Return the names of those that are there now, and have not ended."""
        last = {pod["metadata"]["name"]: (kind, pod) for kind, pod in list(self.events)}
        ended = ("Succeeded", "Failed")
        return {
            name
            for name, (kind, pod) in last.items()
            if kind != "DELETED" and pod["status"].get("phase") not in ended
        }

    def names(self, labels: dict[str, str]) -> set[str]:
        """Return the names of all pods with these labels that there ever were."""
        return {
            pod["metadata"]["name"]
            for _, pod in self.events
            if labels.items() <= pod["metadata"]["labels"].items()
        }


@contextmanager
def watched(kind: str, labels: str) -> Iterator[Watch]:
    """Watch objects of a kind in the tests' namespace: nothing is missed from now on."""
    found = Watch()
    path = f"{_PATHS[kind]}/namespaces/{NAMESPACE}/{kind}?labelSelector={quote(labels)}"
    now = json.loads(kubectl("get", "--raw", path))["metadata"]["resourceVersion"]
    process = subprocess.Popen(
        ["kubectl", "get", "--raw", f"{path}&watch=1&timeoutSeconds=3600&resourceVersion={now}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    reader = threading.Thread(target=_read, args=(process, found), daemon=True)
    reader.start()
    try:
        yield found
    finally:
        process.terminate()
        process.wait(10)
        reader.join(10)
        if process.stdout:
            process.stdout.close()
    eventually(lambda: not reader.is_alive(), what="the watch to end")


def _read(process: subprocess.Popen[str], found: Watch) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        found.events.append((event["type"], event["object"]))
        found.times.append(time.monotonic())
