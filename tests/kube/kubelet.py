"""A stand-in for kubelets: pods of Jobs run as local processes, with what they mount.

It does of a kubelet what tasks see: environment, mounted Secrets and ConfigMaps, names of Services,
exit codes, the last lines of a log. It asks for pods some times a second.
"""

import base64
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from administrator import Administrator, Object, Refused

from crossdock.jobfile.expansion import expand
from harness import COMMAND

OF_JOB: Final = "batch.kubernetes.io/job-name"
_FIELD: Final = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_PAUSE_SECONDS: Final = 0.15


class Kubelet:
    """Runs the pods of Jobs in one namespace. Use it as a context."""

    def __init__(
        self, admin: Administrator, namespace: str, directory: Path, names: Mapping[str, str]
    ) -> None:
        """Args: `names` are URLs in the environment, and what they stand for here."""
        self._admin = admin
        self._root = f"/api/v1/namespaces/{namespace}"
        self._directory = directory
        self._names = dict(names)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._pods: dict[str, Object] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)
        self.problems: list[str] = []
        self.started: list[tuple[str, int]] = []
        """Stage and index of each pod that ran, in their order."""

    def __enter__(self) -> Self:
        self._directory.mkdir(exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for process in self._processes.values():
            _kill(process)

    def running(self) -> int:
        """Return how many pods run now."""
        return len(self._processes)

    def _run(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            try:
                self._look()
            except (Refused, OSError) as error:
                self.problems.append(repr(error))

    def _look(self) -> None:
        listed = self._admin.ask("GET", f"{self._root}/pods?labelSelector={OF_JOB}")["items"]
        pods = {pod["metadata"]["uid"]: pod for pod in listed}
        for uid in list(self._processes):
            gone = uid not in pods or "deletionTimestamp" in pods[uid]["metadata"]
            code = self._processes[uid].poll()
            if gone:
                _kill(self._processes.pop(uid))
            elif code is not None:
                del self._processes[uid]
                self._ended(self._pods[uid], code)
        for uid, pod in pods.items():
            if uid not in self._pods and "deletionTimestamp" not in pod["metadata"]:
                self._pods[uid] = pod
                self._start(pod)

    def _start(self, pod: Object) -> None:
        container = pod["spec"]["containers"][0]
        mounts = self._mount(pod, container)
        env: dict[str, str] = {}
        for variable in container.get("env", ()):
            value = variable.get("value") or _field(pod, variable.get("valueFrom"))
            value = self._names.get(value, expand(value, env))
            for path, directory in mounts.items():
                value = re.sub(f"^{re.escape(path)}(?=/|$)", str(directory), value)
            env[variable["name"]] = value
        argv = [expand(part, env) for part in [*container["command"], *container.get("args", [])]]
        argv[0] = {"python": sys.executable, "crossdock": str(COMMAND)}.get(argv[0], argv[0])
        log = self._log(pod)
        with log.open("wb") as file:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **env},
                start_new_session=True,
            )
        self._processes[pod["metadata"]["uid"]] = process
        labels = pod["metadata"]["labels"]
        index = int(env["JOB_COMPLETION_INDEX"])
        self.started.append((labels.get("crossdock.dev/stage", ""), index))
        self._say(pod, {"phase": "Running"})

    def _mount(self, pod: Object, container: Object) -> dict[str, Path]:
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
        found = {}
        for mount in container.get("volumeMounts", ()):
            volume = volumes[mount["name"]]
            sources = [volume, *volume.get("projected", {}).get("sources", ())]
            files: dict[str, str] = {}
            for source in sources:
                if "secret" in source:
                    name = source["secret"].get("secretName") or source["secret"]["name"]
                    files |= self._get(f"{self._root}/secrets/{name}").get("data", {})
                if "configMap" in source:
                    name = source["configMap"]["name"]
                    files |= self._get(f"{self._root}/configmaps/{name}").get("binaryData", {})
            if files:
                directory = self._directory / pod["metadata"]["uid"] / mount["name"]
                directory.mkdir(parents=True)
                for name, data in files.items():
                    (directory / name).write_bytes(base64.b64decode(data))
                found[mount["mountPath"]] = directory
        return found

    def _get(self, path: str) -> Object:
        return self._admin.ask("GET", path)

    def _log(self, pod: Object) -> Path:
        return self._directory / f"{pod['metadata']['name']}.log"

    def logs(self) -> str:
        """Return what all pods wrote."""
        logs = sorted(self._directory.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in logs)

    def _ended(self, pod: Object, code: int) -> None:
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
        if code:
            ended["message"] = self._log(pod).read_text(errors="replace")[-2048:]
        status = {
            "name": pod["spec"]["containers"][0]["name"],
            "image": "local",
            "imageID": "local",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        self._say(pod, {"phase": "Failed" if code else "Succeeded", "containerStatuses": [status]})

    def _say(self, pod: Object, status: Mapping[str, Any]) -> None:
        path = f"{self._root}/pods/{pod['metadata']['name']}/status"
        try:
            self._admin.merge(path, {"status": dict(status)})
        except Refused as refused:
            if refused.status != 404:
                raise


def _field(pod: Object, source: Object | None) -> str:
    path = (source or {}).get("fieldRef", {}).get("fieldPath", "")
    if path == "metadata.uid":
        return str(pod["metadata"]["uid"])
    if match := _FIELD.fullmatch(path):
        return str(pod["metadata"].get(match[1], {}).get(match[2], ""))
    return ""


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
