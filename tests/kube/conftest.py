"""A control plane for the session, and an administrator of it."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from administrator import Administrator
from control_plane import ControlPlane, control_plane, controllers

from crossdock_operator.kube import Kube
from harness import SHARED_PROCESSES

sys.path.append(str(Path(__file__).parents[1] / "stores"))  # servers and faults
CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with our CRDs; no controllers."""
    with control_plane(tmp_path_factory.mktemp("kube")) as found:
        SHARED_PROCESSES.update(found.pids)
        admin = Administrator(found)
        for path in sorted(CRDS.glob("*.yaml")):
            admin.install_crd(path)
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
async def kube(plane: ControlPlane) -> AsyncIterator[Kube]:
    """The operator's own way to call, with all rights."""
    async with await Kube.connect(plane.kubeconfig) as found:
        yield found
