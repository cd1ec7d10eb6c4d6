"""A staged job where all that is said is encrypted, by the authority that the operator made."""

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from administrator import Administrator
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
        files = {name: tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt")}
        for name, path in files.items():
            path.write_bytes(base64.b64decode(made["data"][name]))
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
