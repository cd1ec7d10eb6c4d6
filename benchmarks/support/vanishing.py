"""How long a namespace with a cluster, jobs and their data takes to be gone."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from support.kube import Site as Plane
from support.kube import wait
from support.measure import MIB
from support.s3 import bucket

# The two above have put the tests' folders on the path.
from ending_scene import Scene, Site  # isort: skip
from roles import granted_everywhere  # isort: skip

SETTLE_SECONDS = 10
DATA_BYTES = 1024 * MIB
BLOCKS = 8
"""That `Site.fill` writes."""
THREADS = 2
SECONDS = 600.0


def namespace_gone(plane: Plane, jobs: int) -> float:
    """Return how many seconds pass from the deletion until the store and the namespace are empty.

    The workers end with their pods, as a kubelet would see to: what deletion takes is elsewhere.
    """
    directory = plane.directory / "vanishing"
    with bucket(directory) as store, ExitStack() as stack, granted_everywhere(plane.admin):
        scene = Scene(plane.admin, store.server, stack)
        site = scene.site(plane.admin.new_namespace())
        site.settle_seconds = SETTLE_SECONDS
        scene.start(plane.plane, directory, [site.namespace], site)
        site.create()
        with ThreadPoolExecutor(THREADS) as pool:
            uids = list(pool.map(site.make_job, [f"job-{n}" for n in range(jobs)]))
            size = DATA_BYTES // jobs // BLOCKS
            list(pool.map(lambda uid: site.fill(uid, block_bytes=size), uids))
        assert all(scene.in_store(uid) for uid in uids), "not all jobs have data in the store"
        return _deleted(scene, site)


def _deleted(scene: Scene, site: Site) -> float:
    path = f"/api/v1/namespaces/{site.namespace}"
    alive = dict(enumerate(site.workers))
    began = time.monotonic()
    scene.admin.ask("DELETE", path)

    def gone() -> bool:
        for n in [
            n for n in alive if scene.get(site.namespace, "pods", f"main-worker-{n}") is None
        ]:
            alive.pop(n).kill9()
        return not alive and scene.admin.get(path) is None and not scene.in_store()

    wait(gone, SECONDS)
    return time.monotonic() - began
