"""Connections that are used otherwise than clients do: pipelined, dripping, compressed, cut."""

import gzip

import pytest

from harness import WorkerProcess
from raw import Peer, Target

MIB = 2**20


@pytest.fixture
def words(worker: WorkerProcess, job_uid: str) -> Target:
    target = Target(Peer(worker.url, ""), job_uid)
    assert target.register().status == 201
    return target


# -- compression ---------------------------------------------------------------------------


def test_compressed_bodies_are_refused_and_not_opened(worker: WorkerProcess, words: Target) -> None:
    bomb = gzip.compress(bytes(256 * MIB), 1)
    before = worker.anonymous_bytes
    for path in (words.job_path, f"{words.path}/seal", f"{words.path}/frames"):
        reply = words.peer.ask("PUT", path, bomb, headers={"Content-Encoding": "gzip"})
        assert (reply.status, reply.code) == (415, "http")
    assert worker.anonymous_bytes - before < 32 * MIB


@pytest.mark.parametrize("expect", [True, False])
def test_a_frame_that_says_it_is_compressed_is_refused(words: Target, *, expect: bool) -> None:
    headers = {"Content-Encoding": "gzip"}
    path = f"{words.path}/frames"
    reply = words.peer.ask("PUT", path, words.frame(), expect=expect, headers=headers)
    assert (reply.status, reply.continued) == (415, False)
    assert not len(words.frames())
