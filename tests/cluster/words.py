"""A job whose progress a test decides, and what must hold when it is done."""

import json
from collections.abc import Collection
from typing import Any, Final

from kube_client import Object, apply, get, kubectl, name_of, pods, ready, shell
from objects import BUCKET, STAGE, job
from tally import MAPS, expected, gate

from harness import eventually

STORE: Final = "s3-0"
DISK: Final = "/var/lib/crossdock"
"""Of a worker."""
COUNTERS: Final = 2
"""Tasks that count."""


class Words:
    """A job that draws words and counts them, stopped half through its maps."""

    def __init__(self, name: str, **spec: Any) -> None:
        """Make it."""
        self.name = name
        self.pods = f"crossdock.dev/job={name}"
        shell(STORE, f"mkdir -p /data/gates; rm -rf /data/gates/{name}-* /data/{name}")
        apply(job(name, **spec))
        self.cluster: str = spec.get("clusterRef", {"name": "default"})["name"]
        self.uid: str = get("shufflejob", name)["metadata"]["uid"]

    def until_half_mapped(self) -> None:
        """Wait until half of the maps are done, and the others stand at their gate."""
        eventually(self._is_half_mapped, seconds=120, what="half of the maps", pause=0.5)

    def until_mapped(self) -> None:
        """Let all maps end, and wait until the tasks that count stand at their gate."""
        self.until_half_mapped()
        self.open("draw")
        eventually(self._counts, seconds=120, what="tasks that count", pause=0.5)

    def open(self, stage: str, *, by: str = STORE) -> None:
        """Let a stage's tasks go on; `by` is a pod that sees their gate."""
        shell(by, f"touch {gate(self.name, stage)}")

    def held_by(self, worker: str) -> bool:
        """Tell whether a worker has frames of it on its disk."""
        look = f"find {DISK}/jobs -path '*{self.uid}*' -size +1M"
        return bool(shell(worker, look))

    def running(self, stage: str) -> list[str]:
        """Return the pods of a stage that run."""
        found = pods(f"{self.pods},{STAGE}={stage}")
        return [name_of(pod) for pod in found if pod["status"].get("phase") == "Running"]

    @property
    def status(self) -> Object:
        """What the operator says of it."""
        return dict(get("shufflejob", self.name)["status"])

    def finish(self) -> Object:
        """Let it end: right, without executors, and after its deletion without a trace.

        Returns:
            Its last status.
        """
        self.open("draw")
        self.open("count")
        wait(f"shufflejob/{self.name}", "Succeeded")
        assert self.counted() == expected()
        assert not pods(self.pods), "a job that is done has no executors"
        assert staged_files() == ""
        status = self.status
        self.delete()
        return status

    def delete(self) -> None:
        """Delete it, and see that nothing of it is left in the bucket and on disks."""
        kubectl("delete", "shufflejob", self.name, "--timeout=240s", seconds=250)
        assert in_the_bucket() == ""
        assert on_disks(self.uid, self.cluster) == ""
        shell(STORE, f"rm -rf /data/gates/{self.name}-* /data/{self.name}")

    def counted(self) -> dict[str, int]:
        """Return the result."""
        parts = shell(STORE, f"cat /data/{self.name}/*.json").replace("}{", "}\n{").splitlines()
        found: dict[str, int] = {}
        for part in parts:
            counts = json.loads(part)
            assert not found.keys() & counts.keys(), "a word was counted by two tasks"
            found |= counts
        return found

    def _is_half_mapped(self) -> bool:
        done = get("pods", labels=f"{self.pods},{STAGE}=draw")
        succeeded = sum(pod["status"].get("phase") == "Succeeded" for pod in done)
        return succeeded >= MAPS // 2 and self._waiting("draw") >= MAPS // 2

    def _counts(self) -> bool:
        return len(self.running("count")) == COUNTERS == self._waiting("count")

    def _waiting(self, stage: str) -> int:
        """Return how many tasks of a stage have come to its gate."""
        return len(
            shell(STORE, f"find /data/gates -name '{self.name}-{stage}-waits-*'").splitlines()
        )


def tried_again(status: Object) -> int:
    """Return how many tries the maps took beyond one for each."""
    draw = {stage["name"]: stage for stage in status["stages"]}["draw"]
    return int(draw["attempts"] - draw["tasks"])


def wait(for_what: str, phase: str, *, seconds: float = 240) -> None:
    """Wait for an object's phase; fail at once when it has failed."""
    kind, name = for_what.split("/")

    def is_there() -> bool:
        status = get(kind, name).get("status", {})
        assert "Failed" not in {status.get("phase")} - {phase}, status.get("conditions")
        return bool(status.get("phase") == phase)

    eventually(is_there, seconds=seconds, what=f"{for_what} to be {phase}", pause=0.5)


def staged_files() -> str:
    """Return what of unpublished results lies on the volume of results."""
    return shell(STORE, "find /data -name '.*.crossdock-*'")


def in_the_bucket() -> str:
    """Return every file of the S3 server: objects, parts of uploads, and uploads without parts."""
    return shell(STORE, f"find /s3/{BUCKET} -type f; find /s3 -path '*/multipart/*/*'").strip()


def on_disks(uid: str, cluster: str = "default") -> str:
    """Return what the workers of a cluster have of a job; a tombstone is not of its data."""
    found = workers(cluster)
    assert found, f"the cluster {cluster} has no workers to look at"
    look = f"find {DISK}/jobs -path '*{uid}*' | sort"
    return "".join(shell(name_of(pod), look) for pod in found)


def workers(cluster: str = "default") -> list[Object]:
    """Return a cluster's worker pods."""
    return pods(f"app.kubernetes.io/name=crossdock-worker,app.kubernetes.io/instance={cluster}")


def until_ready(count: int, cluster: str = "default", *, besides: Collection[str] = ()) -> None:
    """Wait until a cluster has so many workers, all ready, and none with one of these uids."""

    def are_ready() -> bool:
        found = workers(cluster)
        known = [pod for pod in found if pod["metadata"]["uid"] in besides]
        return len(found) == count and all(map(ready, found)) and not known

    eventually(are_ready, seconds=240, what=f"{count} workers that are ready", pause=0.5)
