"""A worker whose job is ended, or whose shuffle is released, while it writes to the store."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from faults import Answer, FaultyProxy, Forward, Request, refuse
from servers import S3Server

from crossdock.store.api import Verb
from harness import StartWorker, WorkerProcess, eventually
from raw import Peer, Reply, Target

MAKES = {Verb.PUT, Verb.CREATE_UPLOAD, Verb.UPLOAD_PART, Verb.COMPLETE_UPLOAD}


@dataclass
class Scene:
    """A worker with a store behind a proxy, and a job that has a frame there."""

    worker: WorkerProcess
    proxy: FaultyProxy
    target: Target

    def persist(self, target: Target | None = None) -> Reply:
        asked = target or self.target
        keys = asked.keys(asked.frames())
        return asked.peer.ask("POST", f"{asked.path}/persist", keys.tobytes())

    def made(self, target: Target | None = None) -> list[str]:
        """Return the requests that bring something into being for a job, in their order."""
        uid = (target or self.target).job
        return [r.target for r in list(self.proxy.requests)
                if r.verb in MAKES and f"/{uid}/" in r.target]  # fmt: skip

    def other(self) -> Target:
        """Return another job with a frame."""
        target = Target(self.target.peer, f"{self.target.job}-other")
        assert target.register().status == 201
        assert target.push(target.frame()).status == 200
        return target


@pytest.fixture
def scene(moto: S3Server, folder: str, start_worker: StartWorker, job_uid: str) -> Iterator[Scene]:
    with FaultyProxy(moto.endpoint) as proxy:
        options = [f"endpoint_url={proxy.endpoint}", f"region={moto.region}", "path_style=true"]
        worker = start_worker(
            store=f"s3://{moto.bucket}/{folder.strip('/')}", store_option=options,
            drain_grace_seconds=0, store_settle_seconds=1,
        )  # fmt: skip
        # Else its first look at the store would meet the faults.
        eventually(lambda: "store is there" in worker.log_text())
        target = Target(Peer(worker.url, ""), job_uid)
        assert target.register().status == 201
        assert target.push(target.frame()).status == 200
        yield Scene(worker, proxy, target)
        proxy.heal()


@pytest.mark.parametrize("what", ["job", "fence", "shuffle"])
def test_nothing_is_sent_after_the_acknowledgement(scene: Scene, what: str) -> None:
    """Writes that a store refuses are sent again for two minutes, if nobody ends them."""
    fault = scene.proxy.fail(Verb.PUT, refuse(503, "SlowDown"), times=10_000)
    assert scene.persist().status == 202
    eventually(lambda: fault.hits > 1)
    reply = end(scene, what)
    assert reply.status == 200, reply
    made = scene.made()
    scene.proxy.heal()
    other = scene.other()
    eventually(lambda: scene.persist(other).status == 200)
    assert scene.made() == made


@pytest.mark.parametrize("what", ["job", "shuffle"])
def test_who_ends_it_hears_of_a_request_under_way(scene: Scene, what: str) -> None:
    goes_on = threading.Event()

    def wait(request: Request, forward: Forward) -> Answer:
        goes_on.wait(60)
        return forward(request)

    fault = scene.proxy.fail(Verb.PUT, wait, times=1)
    assert scene.persist().status == 202
    eventually(lambda: fault.hits)
    reply = end(scene, what)
    assert (reply.status, reply.code) == (503, "unavailable"), reply
    assert int(reply.headers["retry-after"]) >= 1
    code = "job_fenced" if what == "job" else "shuffle_released"
    assert scene.target.push(scene.target.frame(map_id=1)).code == code, "it holds all the same"
    made = scene.made()
    goes_on.set()
    eventually(lambda: end(scene, what).status == 200)
    assert scene.made() == made


def end(scene: Scene, what: str) -> Reply:
    target = scene.target
    match what:
        case "job":
            return target.peer.ask("DELETE", target.job_path)
        case "fence":
            return target.peer.ask("POST", f"{target.job_path}/fence")
        case _:
            return target.peer.ask("DELETE", target.path)
