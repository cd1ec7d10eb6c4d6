"""Staged jobs for tests: tasks that do as files in a directory say, and what comes of them."""

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from administrator import OURS, Administrator, Object
from control_plane import ControlPlane
from kubelet import Kubelet
from operators import OperatorProcess, running_operator
from roles import grant
from specs import STORE, Spec, cluster, job, stage

from crossdock_operator.plan.owners import OwnerKind
from harness import KEY, WorkerProcess, connect_all, eventually, started_workers

T = TypeVar("T")

SECONDS: Final = 120.0
PARTITIONS: Final = 3
MAPS: Final = 3
WORDS: Final = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "the",
    "cat",
]

TASK: Final = '''
"""Counts words: `split` sends each to its partition, `count` adds up, `sort` too."""
import json, os, sys, time, zlib
from collections import Counter
from pathlib import Path

import crossdock

CONTROL, WORDS = Path(sys.argv[1]), sys.argv[2].split()

with crossdock.task() as task:
    name = f"{task.stage}-{task.index}"
    (CONTROL / f"started-{name}-{task.attempt}").touch()
    pace = CONTROL / "pace"
    time.sleep(float(pace.read_text()) if pace.exists() else 0)
    while any((CONTROL / f"hold-{who}").exists() for who in (task.stage, name)):
        time.sleep(0.05)
    failing = CONTROL / f"fail-{name}"
    tries = len(list(CONTROL.glob(f"started-{name}-*")))
    if failing.exists() and tries <= int(failing.read_text()):
        sys.exit(f"told to fail in try {tries}")
    counts = Counter()
    if task.stage == "split":
        counts.update(WORDS[task.index :: task.count])
    else:
        for block in task.input().read():
            counts.update(json.loads(bytes(block.data)))
    if hasattr(task.output, "path"):
        lines = [f"{word} {n}\\n" for word, n in sorted(counts.items())]
        task.output.path(".txt").write_text("".join(lines))
        sys.exit()
    parts = [{} for _ in range(task.output.partitions)]
    for word, n in counts.items():
        at = task.index if (CONTROL / f"alone-{task.stage}").exists() else zlib.crc32(word.encode())
        parts[at % len(parts)][word] = n
    with task.output.writer() as writer:
        for partition, words in enumerate(parts):
            if words or not (CONTROL / f"alone-{task.stage}").exists():
                writer.write(partition, json.dumps(words).encode(), rows=len(words))
'''


class JobScene:
    """A namespace with a cluster, a real worker, an operator, and something like kubelets."""

    def __init__(
        self,
        *,
        admin: Administrator,
        namespace: str,
        operator: OperatorProcess,
        workers: Sequence[WorkerProcess],
        kubelet: Kubelet,
        directory: Path,
    ) -> None:
        self.admin = admin
        self.namespace = namespace
        self.operator = operator
        self.workers = workers
        self.kubelet = kubelet
        self.control = directory / "control"
        self.control.mkdir()
        self._script = directory / "task.py"
        self._script.write_text(TASK)

    # -- what there is to run --------------------------------------------------------------

    def stage(self, name: str, **fields: Any) -> Spec:
        command = ["python", str(self._script), str(self.control), " ".join(WORDS)]
        container = {"name": "task", "image": "example.com/task", "command": command}
        template = {"spec": {"containers": [container]}}
        return stage(name, **{"podTemplate": template, **fields})

    def stages(self, **last: Any) -> list[Spec]:
        """Return two stages that count words."""
        output = {"shuffle": {"partitions": PARTITIONS}}
        return [
            self.stage("split", parallelism=MAPS, output=output),
            self.stage(
                "count",
                **{"parallelism": 2, "inputs": [{"stage": "split"}], "output": output, **last},
            ),
        ]

    def apply(self, name: str = "words", **spec: Any) -> Object:
        given = {"clusterRef": {"name": "main"}, "stages": self.stages(), **spec}
        return self.admin.create(self.namespace, "shufflejobs", job(name, **given))

    def hold(self, name: str) -> None:
        """Make tasks of a stage, or one (STAGE-INDEX), wait."""
        (self.control / f"hold-{name}").touch()

    def release(self, name: str) -> None:
        (self.control / f"hold-{name}").unlink()

    def say(self, name: str, text: str = "") -> None:
        """Tell tasks something: `pace` in seconds, or `alone-STAGE`: a partition for each map."""
        (self.control / name).write_text(text)

    def fail(self, name: str, times: int) -> None:
        """Make the first tries of a task fail."""
        (self.control / f"fail-{name}").write_text(str(times))

    def starts(self) -> Counter[str]:
        """Return how often each task has been started, by STAGE-INDEX."""
        found = (p.name.removeprefix("started-") for p in self.control.glob("started-*"))
        return Counter(name.rpartition("-")[0] for name in found)

    # -- what comes of it ------------------------------------------------------------------

    def path(self, name: str = "words") -> str:
        return f"{OURS}/namespaces/{self.namespace}/shufflejobs/{name}"

    def get(self, name: str = "words") -> Object | None:
        return self.admin.get(self.path(name))

    def listed(self, plural: str, group: str = "/api/v1") -> list[Object]:
        path = f"{group}/namespaces/{self.namespace}/{plural}"
        found: list[Object] = self.admin.ask("GET", path)["items"]
        return found

    def jobs(self) -> list[Object]:
        return self.listed("jobs", "/apis/batch/v1")

    def pods(self) -> list[Object]:
        """Return pods of stages."""
        return [p for p in self.listed("pods") if "crossdock.dev/stage" in p["metadata"]["labels"]]

    def events(self) -> Counter[str]:
        return Counter(event["reason"] for event in self.listed("events")
                       if event["involvedObject"]["kind"] == "ShuffleJob")  # fmt: skip

    def wait(
        self, holds: Callable[[Object], object], name: str = "words", what: str = ""
    ) -> Object:
        """Return the status when it is as wanted."""

        def probe() -> Object | None:
            status: Object = (self.get(name) or {}).get("status") or {}
            return status if holds(status) else None

        try:
            found = eventually(probe, seconds=SECONDS, pause=0.1, what=what or f"job {name}")
        except AssertionError as error:
            status = (self.get(name) or {}).get("status")
            raise AssertionError(
                f"{error}\n{status}\n{self.operator.log()[-5000:]}\n{self.kubelet.logs()}"
                f"\n{self.kubelet.problems[-3:]}"
            ) from None
        assert found is not None
        return found

    def wait_phase(self, phase: str, name: str = "words") -> Object:
        return self.wait(lambda s: s.get("phase") == phase, name, what=f"phase {phase}")

    def kill_operator(self) -> None:
        """Kill it, and let another one lead at once."""
        self.operator.kill9_for_another(self.admin)

    def until(self, what: str, probe: Callable[[], T]) -> T:
        try:
            return eventually(probe, seconds=SECONDS, pause=0.1, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.operator.log()[-5000:]}") from None

    def check_counts(self, uid: str, stage: str = "count", *, ca_file: Path | None = None) -> None:
        """The last shuffle has every word's number."""
        with connect_all(self.workers, ca_file=ca_file) as client, client.job(uid) as handle:
            shuffle = handle.shuffle(stage, partitions=PARTITIONS)
            view = shuffle.view(shuffle.complete_attempts())
            counts: Counter[str] = Counter()
            for block in view.read(range(PARTITIONS)):
                text = bytes(block.data).decode()
                counts.update({w: int(n) for w, n in re.findall(r'"(\w+)": (\d+)', text)})
        assert counts == Counter(WORDS)


def condition(status: Object, kind: str) -> Object:
    """Return a condition of a status; empty if it is not there."""
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


@contextmanager
def job_scene(
    plane: ControlPlane,
    admin: Administrator,
    namespace: str,
    directory: Path,
    *,
    workers: int = 1,
    owners: Sequence[OwnerKind] = (),
    worker_options: Mapping[str, object] | None = None,
    cluster_workers: Mapping[str, object] | None = None,
    operator_options: Sequence[str] = (),
    server: str = "",
) -> Iterator[JobScene]:
    """Set everything up for jobs of the cluster `main`.

    Args:
        plane: the control plane.
        admin: of it.
        namespace: for all of it.
        directory: for files.
        workers: real worker processes.
        owners: kinds that the operator is told of, and its role has.
        worker_options: of each.
        cluster_workers: what the ShuffleCluster says of its workers.
        operator_options: more of them.
        server: URL at which the operator reaches the API server, if not straight.
    """
    grant(admin, namespace, owners=owners)
    admin.await_service_account(namespace)
    with ExitStack() as stack:
        started = stack.enter_context(started_workers(workers, key=KEY, options=worker_options))
        labels = {
            "crossdock.dev/cluster": "main",
            "app.kubernetes.io/managed-by": "crossdock-operator",
        }
        key = {"keys": base64.b64encode(KEY + b"\n").decode()}
        secret = {"metadata": {"name": "main-key", "labels": labels}, "data": key}
        admin.ask("POST", f"/api/v1/namespaces/{namespace}/secrets", secret)
        store = {"url": STORE.as_uri(), "settleSeconds": 1}
        plain = {"tls": {"mode": "Disabled"}}
        spec = {"store": store, "security": plain, "workers": dict(cluster_workers or {})}
        admin.create(namespace, "shuffleclusters", cluster(**spec))
        urls = [worker.url for worker in started]
        names = {f"http://main.{namespace}.svc:7070": ",".join(urls)}
        kubelet = stack.enter_context(Kubelet(admin, namespace, directory / "kubelet", names))
        resolve = [part for url in urls for part in ("--resolve", f"{namespace}/main={url}")]
        kinds = [part for kind in owners for part in ("--owner-kinds", str(kind))]
        operator = stack.enter_context(
            running_operator(
                plane, directory, namespace, *resolve, *kinds, *operator_options, server=server
            )
        )
        yield JobScene(
            admin=admin,
            namespace=namespace,
            operator=operator,
            workers=started,
            kubelet=kubelet,
            directory=directory,
        )
