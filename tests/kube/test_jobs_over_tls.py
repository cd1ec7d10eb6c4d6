"""A staged job where all that is said is encrypted, by the authority that the operator made."""

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from administrator import Administrator, Object
from control_plane import ControlPlane
from kubelet import Kubelet
from operators import running_operator
from roles import grant
from specs import STORE, cluster
from staged_jobs import MAPS, JobScene

from harness import KEY, WorkerProcess, eventually
from ports import unused_ports

pytestmark = pytest.mark.usefixtures("_controllers")
WORKERS = 2


def write_files(secret: Object, directory: Path) -> dict[str, Path]:
    """Do as kubelets do with a certificate's Secret; return its files."""
    files = {name: directory / name for name in ("tls.crt", "tls.key", "ca.crt")}
    for name, path in files.items():
        path.write_bytes(base64.b64decode(secret["data"][name]))
    return files


@pytest.fixture
def scene(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> Iterator[JobScene]:
    """As of other staged jobs, but that its workers have the cluster's certificate."""
    grant(admin, namespace)
    admin.await_service_account(namespace)
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    labels = {"crossdock.dev/cluster": "main", "app.kubernetes.io/managed-by": "crossdock-operator"}
    key = {"keys": base64.b64encode(KEY + b"\n").decode()}
    admin.ask("POST", secrets, {"metadata": {"name": "main-key", "labels": labels}, "data": key})
    ports = unused_ports(WORKERS)
    urls = [f"https://127.0.0.1:{port}" for port in ports]
    resolve = [part for url in urls for part in ("--resolve", f"{namespace}/main={url}")]
    with ExitStack() as stack:
        operator = stack.enter_context(running_operator(plane, tmp_path, namespace, *resolve))
        store = {"url": STORE.as_uri(), "settleSeconds": 1}
        admin.create(
            namespace, "shuffleclusters", cluster(store=store, workers={"replicas": WORKERS})
        )
        made = eventually(lambda: admin.get(f"{secrets}/main-tls"), seconds=60, what="TLS")
        assert made is not None
        files = write_files(made, tmp_path)
        tls = {"tls_cert": files["tls.crt"], "tls_key": files["tls.key"]}
        options = {**tls, "tls_ca": files["ca.crt"], "peers": ",".join(urls)}
        workers = []
        for port in ports:
            worker = stack.enter_context(WorkerProcess(key=KEY, options=options))
            worker.port = port
            workers.append(worker.launch())
        for number, worker in enumerate(workers):
            worker.wait_ready()
            admin.make_ready(namespace, f"main-worker-{number}")
        names = {f"https://main.{namespace}.svc:7070": ",".join(urls)}
        kubelet = stack.enter_context(Kubelet(admin, namespace, tmp_path / "kubelet", names))
        yield JobScene(
            admin=admin,
            namespace=namespace,
            operator=operator,
            workers=workers,
            kubelet=kubelet,
            directory=tmp_path,
        )


def test_a_staged_job_over_tls(scene: JobScene, tmp_path: Path) -> None:
    assert {worker.url.partition(":")[0] for worker in scene.workers} == {"https"}
    uid = scene.apply()["metadata"]["uid"]
    status = scene.wait_phase("Succeeded")
    assert sum(scene.starts().values()) == MAPS + 2
    scene.check_counts(uid, ca_file=tmp_path / "ca.crt")
    path = f"/api/v1/namespaces/{scene.namespace}/secrets/{status['connectionSecret']}"
    data = scene.admin.ask("GET", path)["data"]
    assert base64.b64decode(data["ca.crt"]) == (tmp_path / "ca.crt").read_bytes()
    # Its end is said over TLS, too.
    scene.admin.ask("DELETE", scene.path())
    scene.until("the job is gone", lambda: scene.get() is None)
    for worker in scene.workers:
        assert not list(worker.data_dir.glob(f"**/{uid}/**/*.log"))


def test_an_authority_that_is_made_again(scene: JobScene, tmp_path: Path) -> None:
    """Workers and operator go over to it; the job that was there before is ended by it, too."""
    uid = scene.apply("before")["metadata"]["uid"]
    scene.wait_phase("Succeeded", "before")
    before = (tmp_path / "ca.crt").read_bytes()
    secrets = f"/api/v1/namespaces/{scene.namespace}/secrets"
    for name in ("main-ca", "main-tls"):
        scene.admin.ask("DELETE", f"{secrets}/{name}")

    def made_again() -> Object | None:
        found = scene.admin.get(f"{secrets}/main-tls")
        anew = found is not None and base64.b64decode(found["data"]["ca.crt"]) != before
        return found if anew else None

    made = scene.until("another authority", made_again)
    assert made is not None
    write_files(made, tmp_path)
    for worker in scene.workers:
        worker.restart()
    scene.apply("after")
    scene.wait_phase("Succeeded", "after")
    scene.admin.ask("DELETE", scene.path("before"))
    scene.until("the job before is gone", lambda: scene.get("before") is None)
    for worker in scene.workers:
        assert not list(worker.data_dir.glob(f"**/{uid}/**/*.log"))
