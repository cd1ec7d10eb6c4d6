"""Operators as processes of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import yaml
from control_plane import ADMIN_TOKEN, OPERATOR_TOKEN, ControlPlane

COMMAND = Path(sys.executable).with_name("crossdock")


class OperatorProcess:
    """`crossdock operator`, killed and started again as a test wishes."""

    def __init__(
        self,
        plane: ControlPlane,
        directory: Path,
        namespace: str,
        options: Sequence[str] = (),
        *,
        watched: Sequence[str] = (),
    ) -> None:
        """Args: `watched` namespaces, by default its own; `options` of the command line."""
        self._log = directory / "operator.log"
        self._kubeconfig = directory / "kubeconfig-operator"
        config = plane.kubeconfig.read_text().replace(ADMIN_TOKEN, OPERATOR_TOKEN)
        self._kubeconfig.write_text(yaml.safe_dump(yaml.safe_load(config)))
        self._namespace = namespace
        self._watched = tuple(watched) or (namespace,)
        self._options = tuple(options)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it; it is at work some seconds later."""
        where = ["--namespace", self._namespace]
        where += [part for each in self._watched for part in ("--watch", each)]
        command = [COMMAND, "operator", "--worker-image", "example.com/crossdock", *where]
        command += self._options
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "KUBECONFIG": str(self._kubeconfig)},
            )
        return self

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
        code = self._process.wait(30)
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
    plane: ControlPlane, directory: Path, namespace: str, *options: str
) -> Iterator[OperatorProcess]:
    """Run an operator for one namespace until the context ends."""
    operator = OperatorProcess(plane, directory, namespace, options)
    try:
        yield operator.start()
    finally:
        operator.kill9()
