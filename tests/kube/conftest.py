"""A control plane for the session, and an administrator of it."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from administrator import Administrator
from control_plane import ControlPlane, control_plane, controllers
from operators import running_operator
from roles import grant
from scenes import Scene

from crossdock_operator.kube import Kube
from harness import SHARED_PROCESSES

sys.path.append(str(Path(__file__).parents[1] / "stores"))  # servers and faults
sys.path.append(str(Path(__file__).parents[1] / "charts"))  # what the chart becomes


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with our CRDs; no controllers."""
    with control_plane(tmp_path_factory.mktemp("kube")) as found:
        SHARED_PROCESSES.update(found.pids)
        Administrator(found).install_crds()
        yield found


@pytest.fixture(scope="session")
def _controllers(plane: ControlPlane) -> Iterator[None]:
    with controllers(plane) as pid:
        SHARED_PROCESSES.add(pid)
        yield


@pytest.fixture
def admin(plane: ControlPlane) -> Administrator:
    """May do everything."""
    return Administrator(plane)


@pytest.fixture
def namespace(admin: Administrator) -> str:
    """A namespace of the test's own."""
    return admin.new_namespace()


@pytest.fixture
def _service_monitors(admin: Administrator) -> Iterator[None]:
    """The kind ServiceMonitor is known while the test lasts."""
    admin.install_crd(Path(__file__).with_name("servicemonitors.yaml"))
    yield
    admin.remove_crd("servicemonitors.monitoring.coreos.com")


@pytest.fixture
async def kube(plane: ControlPlane) -> AsyncIterator[Kube]:
    """The operator's own way to call, with all rights."""
    async with await Kube.connect(plane.kubeconfig) as found:
        yield found


@pytest.fixture
def scene(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> Iterator[Scene]:
    """A namespace, in which only restricted pods may run, with an operator for it."""
    grant(admin, namespace)
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    admin.merge(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": enforce}})
    with running_operator(plane, tmp_path, namespace) as operator:
        yield Scene(admin, namespace, operator)
