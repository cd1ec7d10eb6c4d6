"""Clusters with a real store and real workers, whose pods the API server only believes to run."""

import base64
import json
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from administrator import OURS, Administrator, Object
from control_plane import ControlPlane
from operators import OperatorProcess
from servers import ENVIRONMENT, S3Server
from specs import cluster, job

import crossdock
from crossdock.wire import tokens
from crossdock.wire.tokens import ANY_JOB, Right
from harness import QUICK, WorkerProcess, eventually
from listing import files_below
from ports import unused_ports

SETTLE_SECONDS = 1
SECONDS = 120.0
PARTITIONS = 4


@dataclass
class Site:
    """One ShuffleCluster: its Secret, and its workers as processes of this machine."""

    scene: "Scene"
    namespace: str
    name: str
    urls: list[str]
    workers: list[WorkerProcess] = field(default_factory=list)
    uid: str = ""
    key: bytes = b""
    authority: Path | None = None
    settle_seconds: int = SETTLE_SECONDS

    def create(self, *, endpoint: str = "", own_account: bool = False, **spec: Any) -> None:
        """Make the ShuffleCluster and its Secret, and start its workers."""
        scene = self.scene
        data = {k: v for k, v in ENVIRONMENT.items() if k.startswith("AWS_")}
        secret = {"metadata": {"name": "s3"}, "stringData": data}
        scene.admin.ask("POST", f"/api/v1/namespaces/{self.namespace}/secrets", secret)
        store: dict[str, Any] = {
            "url": scene.store,
            "endpoint": endpoint or scene.server.endpoint,
            "region": scene.server.region,
            "pathStyle": True,
            "settleSeconds": self.settle_seconds,
            "credentialsSecretRef": {"name": "s3"},
        }
        if own_account:
            del store["credentialsSecretRef"]
            store["serviceAccountName"] = "store-access"
        spec = {"store": store, "workers": {"replicas": len(self.urls)},
                "security": {"tls": {"mode": "Disabled"}}, **spec}  # fmt: skip
        body = cluster(self.name, **spec)
        made = scene.admin.create(self.namespace, "shuffleclusters", body)
        self.uid = made["metadata"]["uid"]
        keys = scene.wait(self.namespace, "secrets", f"{self.name}-key")["data"]["keys"]
        self.key = tokens.parse_keys(base64.b64decode(keys).decode())[0]
        self._start_workers(own_account=own_account)

    def _tls_options(self) -> dict[str, object]:
        """Bring the workers' certificate to a directory, as a kubelet does."""
        if not self.urls[0].startswith("https"):
            return {}
        files = self.scene.wait(self.namespace, "secrets", f"{self.name}-tls")["data"]
        directory = Path(self.scene.stack.enter_context(tempfile.TemporaryDirectory()))
        for name, text in files.items():
            (directory / name).write_bytes(base64.b64decode(text))
        self.authority = directory / "ca.crt"
        return {"tls_cert": directory / "tls.crt", "tls_key": directory / "tls.key",
                "tls_ca": self.authority}  # fmt: skip

    def _start_workers(self, *, own_account: bool) -> None:
        server = self.scene.server
        tls = self._tls_options()
        for url in self.urls:
            options = {
                "store": self.scene.store,
                "store_option": [f"endpoint_url={server.endpoint}", f"region={server.region}",
                                 "path_style=true"],
                "store_settle_seconds": self.settle_seconds,
                "cluster": self.uid,
                "drain_grace_seconds": 0,
                "peers": ",".join(self.local),
                "peers_interval_seconds": 0.2,
                **tls,
            }  # fmt: skip
            host, _, port = url.rpartition(":")
            if "127.0.0.1" not in host:
                options["advertise"] = url
            worker = WorkerProcess(key=self.key, options=options, environment=ENVIRONMENT)
            worker.port = int(port)
            self.scene.stack.enter_context(worker)
            self.workers.append(worker.launch())
        for worker in self.workers:
            worker.wait_ready()
        if own_account:  # no pod is made without it
            account = {"metadata": {"name": "store-access"}}
            path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
            self.scene.admin.ask("POST", path, account)
        for n in range(len(self.urls)):
            self.scene.admin.make_ready(self.namespace, f"{self.name}-worker-{n}")

    def make_job(self, name: str, *, namespace: str = "", **spec: Any) -> str:
        """Make a ShuffleJob, and return its uid once the operator holds it."""
        where = namespace or self.namespace
        reference = {"name": self.name, "namespace": self.namespace}
        body = job(name, clusterRef=reference, **spec)
        made = self.scene.admin.create(where, "shufflejobs", body)
        self.scene.wait(where, "shufflejobs", name, lambda o: o["metadata"].get("finalizers"))
        uid: str = made["metadata"]["uid"]
        return uid

    @property
    def local(self) -> list[str]:
        """Where the workers answer on this machine."""
        parts = [(url.partition(":")[0], url.rpartition(":")[2]) for url in self.urls]
        return [f"{scheme}://127.0.0.1:{port}" for scheme, port in parts]

    def fill(self, uid: str, *, persist: bool = True, block_bytes: int = 20_000) -> None:
        """Have a job have frames on all workers, and segments in the store; eight blocks."""
        token = tokens.mint(self.key, job=ANY_JOB, rights=[Right.ADMIN])
        with crossdock.connect(
            self.local, token=token, ca_file=self.authority, options=QUICK
        ) as client:
            opened = client.job(uid, owner="cluster")
            shuffle = opened.shuffle("words", partitions=PARTITIONS, maps=2)
            for m in range(2):
                with shuffle.writer(map_id=m, attempt=0) as writer:
                    for p in range(PARTITIONS):
                        writer.write(p, secrets.token_bytes(block_bytes), rows=1)
            if persist:
                shuffle.view().persist()
            opened.close()

    def left_on_disks(self, uid: str) -> list[str]:
        """Return what workers have of a job, but for its tombstone."""
        places = [worker.data_dir / "jobs" / uid for worker in self.workers]
        return [str(path) for place in places for path in files_below(place)]


class Scene:
    """An operator with a namespace of its own, and others that it looks after."""

    def __init__(self, admin: Administrator, server: S3Server, stack: ExitStack) -> None:
        self.admin = admin
        self.server = server
        self.stack = stack
        self.store = f"s3://{server.bucket}/test-{secrets.token_hex(6)}"
        self.home = admin.new_namespace()
        self.operator: OperatorProcess | None = None

    def site(self, namespace: str, name: str = "main", *, workers: int = 2) -> Site:
        """Return a cluster that is to be made; the operator is told of its workers' ports."""
        urls = [f"http://127.0.0.1:{port}" for port in unused_ports(workers)]
        return Site(self, namespace, name, urls)

    def start(
        self, plane: ControlPlane, directory: Path, namespaces: Sequence[str], *sites: Site
    ) -> None:
        """Run the operator."""
        self._begun = (plane, directory, namespaces)
        at = [f"{s.namespace}/{s.name}={url}" for s in sites for url in s.urls]
        options = [part for each in at for part in ("--resolve", each)]
        self.operator = OperatorProcess(
            plane, directory, self.home, watch=namespaces, options=options
        )
        self.stack.callback(self.operator.kill9)
        self.operator.start()

    def restart(self, *sites: Site) -> None:
        """Run the operator with other URLs of workers."""
        assert self.operator is not None
        self.operator.kill9()
        self.start(*self._begun, *sites)

    def path(self, namespace: str, plural: str, name: str) -> str:
        root = {"statefulsets": "/apis/apps/v1"}.get(plural, "/api/v1")
        root = OURS if plural.startswith("shuffle") else root
        return f"{root}/namespaces/{namespace}/{plural}/{name}"

    def get(self, namespace: str, plural: str, name: str) -> Object | None:
        return self.admin.get(self.path(namespace, plural, name))

    def delete(self, namespace: str, plural: str, name: str) -> None:
        self.admin.ask("DELETE", self.path(namespace, plural, name))

    def annotate(self, namespace: str, plural: str, name: str, **annotations: str) -> None:
        found = {f"crossdock.dev/{k.replace('_', '-')}": v for k, v in annotations.items()}
        path = self.path(namespace, plural, name)
        self.admin.merge(path, {"metadata": {"annotations": found}})

    def wait(
        self, namespace: str, plural: str, name: str, holds: Callable[[Object], object] = bool
    ) -> Object:
        last: list[Object | None] = [None]

        def probe() -> Object | None:
            last[0] = found = self.get(namespace, plural, name)
            return found if found is not None and holds(found) else None

        found = self._eventually(probe, f"{plural} {name}", last)
        assert found is not None
        return found

    def wait_gone(self, namespace: str, plural: str, name: str) -> None:
        last: list[Object | None] = [None]

        def gone() -> bool:
            last[0] = self.get(namespace, plural, name)
            return last[0] is None

        self._eventually(gone, f"{plural} {name} to be gone", last)

    def _eventually(self, probe: Callable[[], Any], what: str, last: list[Object | None]) -> Any:
        try:
            return eventually(probe, seconds=SECONDS, what=what, pause=0.1)
        except AssertionError as error:
            log = self.operator.log()[-4000:] if self.operator else ""
            status = json.dumps((last[0] or {}).get("status"), indent=1)
            raise AssertionError(f"{error}\n{status}\n{log}") from None

    def looks(self, kind: str) -> float:
        """Return how often the operator has looked at objects of a kind."""
        assert self.operator is not None
        return self.operator.metric("crossdock_operator_reconciles_total", kind=kind)

    def copies(self) -> list[str]:
        """Return the names of the Secrets with what deletion needs."""
        found = self.admin.ask("GET", f"/api/v1/namespaces/{self.home}/secrets")["items"]
        names: list[str] = [each["metadata"]["name"] for each in found]
        return [name for name in names if name.startswith("crossdock-access-")]

    def in_store(self, text: str = "") -> list[str]:
        """Return what the store's disk has of this scene, whose path contains a text."""
        prefix = self.store.rpartition("/")[2]
        return sorted(each for each in self.server.left() if prefix in each and text in each)


def condition(body: Object, kind: str) -> Object:
    """Return a condition of an object, or an empty one."""
    found = (body.get("status") or {}).get("conditions", ())
    return next((each for each in found if each["type"] == kind), {})


@contextmanager
def scenes(admin: Administrator, server: S3Server) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(admin, server, stack)
