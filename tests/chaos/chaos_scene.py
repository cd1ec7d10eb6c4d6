"""A server, proxies before it, workers that are killed and come back, and a job that lives."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from chaos_blocks import PARTITIONS, block, check
from chaos_proxy import SETTLE_SECONDS, STALL_SECONDS, ChaosProxy, Weather
from servers import ACCESS_KEY, SECRET_KEY, S3Server
from speaking import acquainted

import crossdock
from crossdock.store.opening import open_store
from crossdock.store.probes import clear_old_probes
from crossdock.store.settings import store_options
from harness import WorkerProcess
from ports import unused_ports

WORKERS: Final = 3
CLUSTER: Final = "chaos"
LIVE_MAPS: Final = 4
LIVE_BYTES: Final = 40_000
FOLDER: Final = Path(__file__).parent


class ChaosWorker(WorkerProcess):
    """A worker that threads may kill and restart at any time."""

    def __init__(self, *, uploads: bool, **options: object) -> None:
        super().__init__(options=options)
        self._uploads = uploads
        self._life = threading.Lock()

    def command(self) -> list[str]:
        line = super().command()
        if self._uploads:
            line[:1] = [sys.executable, str(FOLDER / "chaos_worker.py")]
        return line

    def strike(self) -> bool:
        """Kill it; return whether it lived."""
        with self._life:
            lived = self.running
            if lived:
                self.kill9()
            return lived

    def revive(self) -> None:
        with self._life:
            if not self.running:
                self.start()


@dataclass
class Left:
    """What is left."""

    objects: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.objects or self.uploads or self.files)


def client_of(endpoint: str, server: S3Server) -> Any:  # boto3 has no types
    """Return a client of a server, or of a proxy before it."""
    return boto3.session.Session().client(
        "s3", endpoint_url=endpoint, region_name=server.region,
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip


@dataclass
class Scene:
    """Where rounds are played, several at once."""

    server: S3Server
    folder: str
    weather: Weather
    workers: list[ChaosWorker]
    door: ChaosProxy
    """The clients' way to the store."""
    proxies: list[ChaosProxy]
    revivers: ThreadPoolExecutor

    absences: list[tuple[float, float]] = field(default_factory=list)
    """When any worker was killed, and when it was back."""

    def __post_init__(self) -> None:
        self._s3 = client_of(self.server.endpoint, self.server)

    @property
    def url(self) -> str:
        return f"s3://{self.server.bucket}/{self.folder}"

    def absent_since(self, when: float) -> list[float]:
        """Return for how long a worker was away, for each time that one came back since."""
        return [back - killed for killed, back in list(self.absences) if back > when]

    def worker_behind(self, proxy: ChaosProxy) -> ChaosWorker | None:
        """Return the worker that sends by this proxy."""
        return next(
            (w for w, p in zip(self.workers, self.proxies, strict=True) if p is proxy), None
        )

    def left(self, uid: str = "") -> Left:
        """Return what the server lists of a job, or of all, and what is on the workers' disks."""
        prefix = f"{self.folder}/{CLUSTER}/{uid}/" if uid else f"{self.folder}/{CLUSTER}/"
        listed = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.server.bucket, Prefix=prefix
        )
        objects = [o["Key"] for page in listed for o in page.get("Contents", ())]
        jobs = [w.data_dir / "jobs" for w in self.workers]
        trash = [] if uid else [p for w in self.workers for p in (w.data_dir / "trash").iterdir()]
        return Left(
            objects,
            self._uploads(prefix),
            [str(p) for j in jobs if j.exists() for p in j.iterdir() if uid in {"", p.name}]
            + [str(p) for p in trash],
        )

    def _uploads(self, prefix: str) -> list[str]:
        """Return the keys of unfinished uploads, by a way that is true for this server.

        One that lists none by prefix is asked for each key at which one was begun: all of them
        were, or were not, through the proxies.
        """
        if self.server.lists_uploads:
            return self._listed_uploads(prefix)
        with self.weather.lock:
            begun = [
                target.removeprefix(f"/{self.server.bucket}/") for target in self.weather.begun
            ]
        keys = [key for key in begun if key.startswith(prefix)]
        return [key for key in keys if key in self._listed_uploads(key)]

    def _listed_uploads(self, prefix: str) -> list[str]:
        pages = self._s3.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.server.bucket, Prefix=prefix
        )
        return [u["Key"] for page in pages for u in page.get("Uploads", ())]

    def clear_probes(self) -> None:
        """Do at once what workers do when they start: what probes left is of no job."""
        options = store_options(settings(self.server, self.door))
        store = open_store(self.url, replace(options, endpoint_url=self.server.endpoint))
        clear_old_probes(store, older=timedelta(seconds=-1))
        store.close()

    def close(self) -> None:
        self._s3.close()


@contextmanager
def scene_on(server: S3Server, folder: str, *, seed: int, rate: float) -> Iterator[Scene]:
    """Build a scene, and take it down."""
    weather = Weather(seed, rate)
    with ExitStack() as stack:
        proxies = [
            stack.enter_context(ChaosProxy(server.endpoint, str(i), weather))
            for i in range(WORKERS + 1)
        ]
        workers = []
        ports = unused_ports(WORKERS)
        for number, port in enumerate(ports):
            worker = ChaosWorker(
                uploads=number != 1,
                peers=",".join(f"http://127.0.0.1:{p}" for p in ports),
                peers_interval_seconds=0.3, store=f"s3://{server.bucket}/{folder}",
                store_option=settings(server, proxies[number]), cluster=CLUSTER,
                store_settle_seconds=SETTLE_SECONDS, segment_bytes=2**21, max_frame_bytes=2**19,
                drain_grace_seconds=0, eager_quiet_seconds=0.2,
            )  # fmt: skip
            worker.port = port
            workers.append(stack.enter_context(worker))
        for worker in workers:
            worker.launch()
        for worker in workers:
            worker.wait_ready()
        acquainted(*workers)
        revivers = stack.enter_context(ThreadPoolExecutor(WORKERS))
        scene = Scene(server, folder, weather, workers, proxies[-1], proxies[:-1], revivers)
        stack.callback(scene.close)
        yield scene


def settings(server: S3Server, proxy: ChaosProxy) -> list[str]:
    """Return the store's options for who goes through a proxy."""
    return [
        f"endpoint_url={proxy.endpoint}", f"region={server.region}", "path_style=true",
        f"stall_seconds={STALL_SECONDS}", "deadline_seconds=60",
    ]  # fmt: skip


class LiveJob:
    """A job that lives through all rounds; its data must stay whole."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._seed = seed
        options = crossdock.Options(
            frame_bytes=2**15, buffer_bytes=2**17, deadline_seconds=60, loss_after_seconds=60,
            connect_seconds=2, stall_seconds=10, store=scene.url, store_cluster=CLUSTER,
            store_settle_seconds=SETTLE_SECONDS,
        )  # fmt: skip
        self._cluster = crossdock.connect(
            [w.url for w in scene.workers], options=options,
            store_options=store_options(settings(scene.server, scene.door)),
        )  # fmt: skip
        self.job = self._cluster.job(f"live-{seed}", owner="runner", lease_seconds=300)
        self._views = []
        for name, persisted in (("here", False), ("there", True)):
            shuffle = self.job.shuffle(name, partitions=PARTITIONS, maps=LIVE_MAPS)
            for m in range(LIVE_MAPS):
                with shuffle.writer(map_id=m, attempt=0) as writer:
                    for p in range(PARTITIONS):
                        writer.write(p, block(seed, m, p, LIVE_BYTES), rows=m + 1)
            view = shuffle.view()
            if persisted:
                view.persist()
            self._views.append(view)

    def check(self) -> int:
        """Read all of it; return the bytes."""
        return sum(check(list(v.read()), self._seed, LIVE_MAPS, LIVE_BYTES) for v in self._views)

    def close(self) -> None:
        """Leave it to its lease, unless it was ended."""
        self._cluster.close()
