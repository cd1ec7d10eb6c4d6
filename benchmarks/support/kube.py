"""A real API server, the operator as a process, and many ShuffleJobs, for a benchmark."""

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "kube")]

from administrator import OURS, Administrator
from audit import Asked, asked
from control_plane import ControlPlane, control_plane, controllers
from operators import OperatorProcess
from roles import grant

from support.measure import MIB

THREADS = 8
JOB_LABEL = "crossdock.dev/job"


class Site:
    """A namespace on a control plane, and operators for it."""

    def __init__(self, plane: ControlPlane, directory: Path) -> None:
        self.plane = plane
        self.admin = Administrator(plane)
        self.namespace = self.admin.new_namespace()
        self.directory = directory
        grant(self.admin, self.namespace)

    def operator(self, name: str) -> OperatorProcess:
        """Return an operator that is not started yet."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        return OperatorProcess(self.plane, directory, self.namespace, modules=())

    def path(self, plural: str, name: str, root: str = OURS) -> str:
        return f"{root}/namespaces/{self.namespace}/{plural}/{name}"

    def create(self, plural: str, bodies: list[dict[str, Any]]) -> None:
        """Make many objects, several at once."""
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda b: self.admin.create(self.namespace, plural, b), bodies))

    def jobs(self) -> Iterator[dict[str, Any]]:
        """Yield all ShuffleJobs."""
        at = ""
        while True:
            root = f"{OURS}/namespaces/{self.namespace}/shufflejobs"
            page = self.admin.ask("GET", f"{root}?limit=500&continue={at}")
            yield from page["items"]
            at = page["metadata"].get("continue", "")
            if not at:
                return

    def replicas(self) -> int:
        """Return how many workers the cluster's StatefulSet has."""
        found = self.admin.get(self.path("statefulsets", "main-worker", "/apis/apps/v1"))
        return found["spec"]["replicas"] if found else 0

    def scale(self, replicas: int) -> float:
        """Ask for so many workers; return how many seconds the operator took to see to it."""
        self.admin.merge(self.path("shuffleclusters", "main"),
                         {"spec": {"workers": {"replicas": replicas}}})  # fmt: skip
        began = time.perf_counter()
        wait(lambda: self.replicas() == replicas, 120, pause=0.005)
        return time.perf_counter() - began

    @contextmanager
    def audited(self) -> Iterator[list[Asked]]:
        """Collect what the operators ask while the context lasts."""
        begun = self.plane.audit_log.stat().st_size
        found: list[Asked] = []
        yield found
        found += asked(self.plane.audit_log, skip_bytes=begun)


@contextmanager
def site(directory: Path) -> Iterator[Site]:
    """Run a control plane with our CRDs while the context lasts."""
    with control_plane(directory) as plane, controllers(plane):
        Administrator(plane).install_crds()
        yield Site(plane, directory)


def wait(probe: Callable[[], object], seconds: float, *, pause: float = 0.1) -> None:
    """Return when `probe` is true."""
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(pause)


def rss_mib(operator: OperatorProcess) -> float:
    """Return the memory of an operator's process that is in use now."""
    lines = Path(f"/proc/{operator.pid}/status").read_text().splitlines()
    (kib,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return kib * 1024 / MIB


def looked_at(operator: OperatorProcess, kind: str) -> float:
    """Return how many looks at objects of a kind ended well."""
    return operator.metric("crossdock_operator_reconciles_total", kind=kind, outcome="done")


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def writes(calls: list[Asked]) -> Counter[str]:
    """Return how often each resource was written."""
    return Counter(call.resource for call in calls if call.writes and call.resource != "leases")
