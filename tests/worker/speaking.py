"""Words of owners as raw requests, and waiting for what workers know."""

import json
from typing import Any

from harness import WorkerProcess, eventually


def say(worker: WorkerProcess, uid: str, *, right: str = "", **word: Any) -> Any:
    """Send a word to a worker as the owner, or with less than its rights."""
    body = {"owner": "runner", "lease_seconds": 60, **word}
    rights = [right] if right else ["own"]
    token = worker.token(uid, rights) if worker.key else None  # type: ignore[arg-type]
    answer = worker.request("PUT", f"/v1/jobs/{uid}", body=json.dumps(body).encode(), token=token)
    assert answer.status in {200, 201}, answer
    return answer.json()


def acquainted(*workers: WorkerProcess) -> None:
    """Wait until all of some workers have met each other."""

    def met(worker: WorkerProcess) -> bool:
        known = worker.get_json("/v1/workers")["workers"]
        return [w["state"] for w in known] == ["serving"] * len(workers)

    for worker in workers:
        eventually(lambda w=worker: met(w), what="peers that know each other")


def known_for(worker: WorkerProcess, uid: str, seconds: float) -> None:
    """Wait until a worker has known a live job for so long, by its own clock."""
    eventually(
        lambda: worker.get_json("/v1/facts?since=0")["ages"][uid][2] > seconds,
        seconds=seconds + 20,
        what=f"{seconds} s of {uid}",
    )
