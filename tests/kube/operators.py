"""Operators as processes of their own."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml
from administrator import Administrator
from control_plane import ADMIN_TOKEN, OPERATOR_TOKEN, ControlPlane
from prometheus_client.parser import text_string_to_metric_families

import forked
from crossdock_operator.leader import LEASE_NAME
from harness import WAIT_SECONDS, eventually

COMMAND = Path(sys.executable).with_name("crossdock")
MODULES = ("crossdock_operator.cli", "crossdock_operator.run")
"""What an operator imports."""


class OperatorProcess:
    """`crossdock operator`, killed and started again as a test wishes."""

    def __init__(
        self,
        plane: ControlPlane,
        directory: Path,
        namespace: str,
        options: Sequence[str] = (),
        *,
        watch: Sequence[str] | None = None,
        server: str = "",
        modules: Sequence[str] = MODULES,
    ) -> None:
        """Prepare one.

        Args:
            plane: the control plane.
            directory: of its files.
            namespace: where it runs.
            options: more of its command line.
            watch: what it looks after; empty: everything; default: where it runs.
            server: URL at which it reaches the API server, if not straight.
            modules: it is a fork of a process that has imported them; none, where its start counts.
        """
        self._modules = modules
        self._namespace = namespace
        self._log = directory / "operator.log"
        self._kubeconfig = directory / "kubeconfig-operator"
        config = plane.kubeconfig.read_text().replace(ADMIN_TOKEN, OPERATOR_TOKEN)
        if server:
            config = config.replace(plane.url, server)
        self._kubeconfig.write_text(yaml.safe_dump(yaml.safe_load(config)))
        self._options = ["--namespace", namespace, "--listen", "127.0.0.1:0", *options]
        for each in (namespace,) if watch is None else watch:
            self._options += ["--watch", each]
        self._process: forked.Process | None = None
        self._log_start = 0

    def start(self) -> Self:
        """Start it; it is at work some seconds later."""
        command = [
            str(COMMAND),
            "operator",
            "--worker-image",
            "example.com/crossdock",
            *self._options,
        ]
        self._log.touch()  # the fork opens it some time later
        self._log_start = self._log.stat().st_size
        self._process = forked.start(
            command,
            log=self._log,
            environment={"KUBECONFIG": str(self._kubeconfig)},
            modules=self._modules,
        )
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Return the lines of this start's log that are JSON, of one name or all."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            lines = [json.loads(line) for line in log if line.startswith(b"{")]
        return [line for line in lines if name in {"", line["event"]}]

    @property
    def url(self) -> str:
        """Where it answers over HTTP; waits until it does."""
        (where,) = eventually(lambda: self.events("listens"), what="it to listen")
        return f"http://127.0.0.1:{where['port']}"

    def request(self, path: str, token: str = "") -> urllib.request.Request:
        """Return a request to it, with a token of Kubernetes."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return urllib.request.Request(self.url + path, headers=headers)

    def fetch(self, path: str, token: str = "") -> tuple[int, str]:
        """Return status and body of what it answers over HTTP."""
        try:
            with urllib.request.urlopen(
                self.request(path, token), timeout=WAIT_SECONDS
            ) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        found = 0.0
        for family in text_string_to_metric_families(self.fetch("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    found += sample.value
        return found

    def kill9_for_another(self, admin: Administrator) -> None:
        """Kill it, and let another one lead at once: who waits for the Lease is not the point."""
        self.kill9()
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/{LEASE_NAME}"
        if admin.get(path) is not None:
            admin.merge(path, {"spec": {"holderIdentity": ""}})

    def kill9(self) -> None:
        """Kill it, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> int:
        """Ask it to end; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(WAIT_SECONDS)
        self._process = None
        return code

    def ended(self) -> int | None:
        """Return its exit code if it ended by itself."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """Return what it printed so far."""
        return self._log.read_text()


@contextmanager
def running_operator(
    plane: ControlPlane,
    directory: Path,
    namespace: str,
    *options: str,
    watch: Sequence[str] | None = None,
    server: str = "",
) -> Iterator[OperatorProcess]:
    """Run an operator, by default for one namespace, until the context ends.

    What no watch tells it sees sooner than it would by itself.
    """
    options = ("--look-seconds=1", *options)
    operator = OperatorProcess(plane, directory, namespace, options, watch=watch, server=server)
    try:
        yield operator.start()
    finally:
        operator.kill9()
