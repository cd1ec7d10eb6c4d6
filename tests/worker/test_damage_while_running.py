"""Files that become damaged under a running worker: an error that says so, and no crash."""

import os
from collections.abc import Iterator

import pytest

from harness import WorkerProcess
from raw import Peer, Target

MIB = 2**20


@pytest.fixture(scope="module")
def running() -> Iterator[WorkerProcess]:
    with WorkerProcess(options={"stall_seconds": 5}) as process:
        yield process.start()


@pytest.mark.parametrize("file", ["payload.log", "index.log"])
@pytest.mark.parametrize("piece", [2 * MIB, 1000], ids=["sendfile", "gather"])
def test_a_file_that_was_cut_off_is_damage(
    running: WorkerProcess, job_uid: str, file: str, piece: int
) -> None:
    target = Target(Peer(running.url, ""), job_uid, partitions=2)
    assert target.register().status == 201
    for map_id in range(3):
        data = target.frame([(0, bytes(piece), 1), (1, b"x", 1)], map_id=map_id)
        assert target.push(data).status == 200
    keys = target.keys(target.frames())
    places, _ = target.register_places(keys)
    ways = [("GET", f"{places}/blocks?partitions=0-1"), ("GET", f"{places}/sizes?partitions=0-2")]
    for method, path in ways:
        assert target.peer.ask(method, path).status == 200
    directory = running.data_dir / "jobs" / job_uid / "shuffles" / target.name / "0"
    os.truncate(directory / file, 10)
    for method, path in ways:
        reply = target.peer.ask(method, path)
        assert (reply.status, reply.code) == (500, "data_corrupt")
        assert f"{file} is damaged at offset 10" in reply.json()["message"]
    assert target.peer.ask("POST", f"{target.path}/frames/list").code == "data_corrupt"
    assert target.register_places(keys)[1].code == "data_corrupt"
    assert running.request("GET", "/healthz").status == 200
    assert any(f"{file} is damaged" in str(entry) for entry in running.log_lines())


@pytest.mark.parametrize("column", range(4))
def test_a_bit_that_flips_in_the_index_is_damage(
    running: WorkerProcess, job_uid: str, column: int
) -> None:
    """A read would go wrong without a word: nothing else says of which partition a piece is."""
    target = Target(Peer(running.url, ""), job_uid)
    assert target.register().status == 201
    for map_id in range(3):
        data = target.frame([(1, b"abc", 1), (4, b"de", 1)], map_id=map_id)
        assert target.push(data).status == 200
    keys = target.keys(target.frames())
    path = running.data_dir / "jobs" / job_uid / "shuffles" / target.name / "0" / "index.log"
    with path.open("r+b") as file:
        file.seek(40 + 8 * column)  # the second frame's
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 2]))
    reply = target.register_places(keys)[1]
    assert (reply.status, reply.code) == (500, "data_corrupt")
    assert "index.log is damaged at offset 40" in reply.json()["message"]
    assert target.peer.ask("POST", f"{target.path}/frames/list").code == "data_corrupt"
