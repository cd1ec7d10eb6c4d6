"""Releases of the chart by Helm itself. Its hooks run here, as their accounts, not in pods.

No kubelet is there: a hook's Job is looked for, its command line is run with a token of the account
that its pod would have, and its end is written into the Job, for which Helm waits.
"""

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml
from administrator import Administrator, Object
from control_plane import ADMIN_TOKEN, ControlPlane
from rendering import CHART

import build_servers
import forked
from harness import eventually

COMMAND: Final = Path(sys.executable).with_name("crossdock")
MODULES: Final = ("crossdock_operator.cli", "crossdock_operator.release")
NAME: Final = "rel"
_SECONDS: Final = 180.0


class Helm:
    """Releases in a namespace."""

    def __init__(
        self, plane: ControlPlane, admin: Administrator, namespace: str, directory: Path
    ) -> None:
        self._plane = plane
        self._admin = admin
        self.namespace = namespace
        self._directory = directory
        self._calls: list[Running] = []

    def close(self) -> None:
        """End what runs."""
        for each in self._calls:
            each.kill()

    def __call__(self, verb: str, *args: str, values: Object | None = None) -> "Running":
        """Start `helm VERB NAME`; values come by a file, in place of those before."""
        where = ["--namespace", self.namespace, "--kubeconfig", str(self._plane.kubeconfig)]
        if verb in {"install", "upgrade"}:
            path = self._directory / "values.yaml"
            path.write_text(json.dumps(values or {}))
            args = (str(CHART), "--values", str(path), *args)
        command = [str(build_servers.cached("helm")), verb, NAME, *args, *where]
        call = Running(command, self._plane, self._admin, self.namespace, self._directory)
        self._calls.append(call)
        return call

    def status(self) -> str:
        """Return what Helm takes the newest revision for."""
        done = subprocess.run(
            [
                str(build_servers.cached("helm")), "history", NAME, "--output=json",
                "--namespace", self.namespace, "--kubeconfig", str(self._plane.kubeconfig),
            ],
            capture_output=True, text=True, check=True, timeout=_SECONDS,
        )  # fmt: skip
        newest: str = json.loads(done.stdout)[-1]["status"]
        return newest


class Running:
    """A call of Helm, and the hooks that it waits for."""

    def __init__(
        self,
        command: list[str],
        plane: ControlPlane,
        admin: Administrator,
        namespace: str,
        directory: Path,
    ) -> None:
        self._plane, self._admin, self._namespace = plane, admin, namespace
        self._directory = directory
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._hooks: dict[str, tuple[Object, forked.Process]] = {}
        self._log = directory / "hooks.log"
        self._log.write_text("")
        self._output = directory / "helm.log"
        homes = {f"HELM_{each}_HOME": str(directory) for each in ("CACHE", "CONFIG", "DATA")}
        with self._output.open("wb") as output:
            self._helm = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, **homes}
            )

    def ended(self) -> "Running":
        """Wait for its end."""
        try:
            eventually(self._ends, seconds=_SECONDS, what="the end of helm")
        finally:
            self.kill()
        return self

    def succeeded(self) -> str:
        """Wait for its end, which must be a good one; return what the hooks said."""
        code = self.ended()._helm.returncode
        assert code == 0, self.said
        return self.hooks

    def failed(self) -> str:
        """Wait for its end, which must be a bad one; return what Helm and the hooks said."""
        code = self.ended()._helm.returncode
        assert code != 0, self.said
        return self.said

    def until_hook_says(self, text: str) -> None:
        """Wait for a word of a hook."""
        assert self.hook_says(text), self.said

    def hook_says(self, text: str) -> bool:
        """Wait for a word of a hook, or the end; return whether it came."""
        eventually(
            lambda: self._ends() or text in self.hooks, seconds=_SECONDS, what=f"{text!r} of a hook"
        )
        return text in self.hooks

    @property
    def hooks(self) -> str:
        """What the hooks printed."""
        return self._log.read_text()

    @property
    def said(self) -> str:
        """What Helm and its hooks printed."""
        return self._output.read_text() + self.hooks

    def kill(self) -> None:
        """End all of it, if it runs."""
        for _, process in self._hooks.values():
            process.kill()
            process.wait()
        self._hooks.clear()
        self._helm.kill()
        self._helm.wait()

    def _ends(self) -> bool:
        for job in self._admin.ask("GET", self._jobs)["items"]:
            if not job.get("status", {}).get("conditions"):
                self._look(job)
        return self._helm.poll() is not None

    def _look(self, job: Object) -> None:
        uid = job["metadata"]["uid"]
        if uid not in self._hooks:
            self._hooks[uid] = (job, self._started(job["spec"]["template"]["spec"]))
        elif (code := self._hooks[uid][1].poll()) is not None:
            del self._hooks[uid]
            path = f"{self._jobs}/{job['metadata']['name']}/status"
            self._admin.merge(path, {"status": _status(code)})

    def _started(self, pod: Object) -> forked.Process:
        (container,) = pod["containers"]
        root = f"/api/v1/namespaces/{self._namespace}/serviceaccounts"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = self._admin.ask("POST", f"{root}/{pod['serviceAccountName']}/token", asked)
        config = self._plane.kubeconfig.read_text()
        config = config.replace(ADMIN_TOKEN, answer["status"]["token"])
        kubeconfig = self._directory / "kubeconfig-hooks"
        kubeconfig.write_text(yaml.safe_dump(yaml.safe_load(config)))
        return forked.start(
            [str(COMMAND), *container["args"]],
            log=self._log,
            environment={"KUBECONFIG": str(kubeconfig)},
            modules=MODULES,
        )


def _status(code: int) -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kinds = ("SuccessCriteriaMet", "Complete") if code == 0 else ("FailureTarget", "Failed")
    at = {"status": "True", "lastProbeTime": now, "lastTransitionTime": now}
    ended = {"completionTime": now} if code == 0 else {}
    conditions = [{"type": kind, **at} for kind in kinds]
    return {"startTime": now, **ended, "conditions": conditions}
