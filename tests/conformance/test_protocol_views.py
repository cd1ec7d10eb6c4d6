"""Views made by a worker, and seals."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_protocol_jobs import check_error

from crossdock.wire import tables
from harness import WorkerProcess
from raw import Batch, Peer, Reply, Target


def view(target: Target, **wish: object) -> Reply:
    body = {"partitions": target.partitions, **wish}
    return target.peer.ask_json("POST", f"{target.path}/views", body)


def fill(target: Target) -> None:
    for m, a in ((0, 5), (0, 6), (1, 2**64 - 1), (2, 0)):
        data = target.frame([(m, b"x" * (m + 1), m)], map_id=m, attempt=a)
        assert target.push(data).status == 200


def with_homes(target: Target) -> Target:
    """Register another job, whose seals live on this worker."""
    homes = [target.peer.ask("GET", "/v1/workers").json()["self"]["id"]]
    other = replace(target, job=f"{target.job}-sealed")
    assert other.register(homes=homes).status == 201
    return other


def test_a_view_says_what_its_readers_need(target: Target) -> None:
    fill(target)
    winners = [[0, 6], [1, 2**64 - 1], [2, 0]]
    reply = view(target, winners=winners)
    assert reply.status == 200, reply
    answer = reply.json()
    assert answer["missing"] == []
    assert answer["winners"] == winners
    assert answer["bytes"] == [1, 2, 3, 0, 0, 0, 0, 0]
    assert answer["rows"] == [0, 1, 2, 0, 0, 0, 0, 0]
    assert answer["blocks"] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert answer["id"] == target.view_id(target.frames([(m, a) for m, a in winners]))
    (place,) = answer["places"]
    assert place["frames"] == 3
    reply = target.peer.ask("GET", f"{place['target']}/blocks")
    assert [data for _, data in Batch.parse(reply.body).pieces()] == [b"x", b"xx", b"xxx"]


def test_the_id_follows_from_the_contents_alone(target: Target) -> None:
    fill(target)
    winners = [[0, 6], [1, 2**64 - 1], [2, 0]]
    first = view(target, winners=winners).json()["id"]
    assert view(target, winners=winners[::-1]).json()["id"] == first
    assert view(target, winners={str(m): str(a) for m, a in winners}).json()["id"] == first
    assert target.push(target.frame(map_id=9)).status == 200  # of no winner
    assert view(target, winners=winners).json()["id"] == first
    others = [
        view(target, winners=[[0, 5], *winners[1:]]).json()["id"],
        view(target, winners=winners[1:]).json()["id"],
        view(target, winners=[]).json()["id"],
    ]
    assert len({first, *others}) == 4


def test_views_name_what_is_missing_and_why(target: Target) -> None:
    fill(target)
    assert target.push(target.frame(map_id=3, count=0)).status == 200
    answer = view(target, winners=[[0, 5], [0 + 3, 0], [7, 1]]).json()
    assert answer["id"] is None
    assert [[m, a] for m, a, _ in answer["missing"]] == [[3, 0], [7, 1]]
    assert all(why for *_, why in answer["missing"])


def test_a_view_of_no_maps_is_empty(target: Target) -> None:
    answer = view(target, winners=[]).json()
    assert answer["bytes"] == [0] * 8
    assert answer["id"] == target.view_id(target.frames()[:0])
    other = with_homes(target)
    empty = view(other, winners=[]).json()
    assert empty["id"] != answer["id"]  # another job
    assert view(other, maps=0).json() == empty
    other.peer.ask("DELETE", other.job_path)


def test_without_winners_the_choice_is_made_once(target: Target) -> None:
    sealed = with_homes(target)
    assert sealed.push(sealed.frame(map_id=0, attempt=5)).status == 200
    answer = view(sealed, maps=2).json()
    assert answer["id"] is None
    assert [m for m, *_ in answer["missing"]] == [1]
    assert sealed.push(sealed.frame(map_id=1, attempt=9)).status == 200
    first = view(sealed, maps=2).json()
    assert first["winners"] == [[0, 5], [1, 9]]
    assert sealed.push(sealed.frame(map_id=1, attempt=1)).status == 200
    assert view(sealed, maps=2).json() == first
    reply = sealed.peer.ask("GET", f"{sealed.path}/seal")
    assert tables.decode(tables.ATTEMPT, reply.body, what="").tolist() == [(0, 5), (1, 9)]
    sealed.peer.ask("DELETE", sealed.job_path)


BAD_WISHES = [
    b"", b"{", b"[]", b"null", b"{}", b'{"partitions": "8"}', b'{"partitions": 8}',
    b'{"partitions": 0, "winners": []}', b'{"partitions": -1, "winners": []}',
    b'{"partitions": 4294967296, "winners": []}', b'{"partitions": 8.5, "winners": []}',
    b'{"partitions": true, "winners": []}', b'{"partitions": 9, "winners": [[0, 5]]}',
    b'{"partitions": 8, "winners": 5}', b'{"partitions": 8, "winners": "ab"}',
    b'{"partitions": 8, "winners": [1]}', b'{"partitions": 8, "winners": [[1]]}',
    b'{"partitions": 8, "winners": [[1, 2, 3]]}', b'{"partitions": 8, "winners": [["a", 1]]}',
    b'{"partitions": 8, "winners": [[1, null]]}', b'{"partitions": 8, "winners": [[1.5, 1]]}',
    b'{"partitions": 8, "winners": ["ab"]}', b'{"partitions": 8, "winners": [null]}',
    b'{"partitions": 8, "winners": [[4294967296, 1]]}', b'{"partitions": 8, "winners": [[-1, 1]]}',
    b'{"partitions": 8, "winners": [[1, 18446744073709551616]]}',
    b'{"partitions": 8, "winners": {"x": 1}}', b'{"partitions": 8, "winners": {"1": []}}',
    b'{"partitions": 8, "winners": [[0, 5], [0, 6]]}',
    b'{"partitions": 8, "maps": -1}', b'{"partitions": 8, "maps": "x"}',
    b'{"partitions": 8, "maps": 1.5}', b'{"partitions": 8, "maps": 4294967296}',
    b'{"partitions": 8, "maps": []}', b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_WISHES, ids=lambda b: repr(b[:50]))
def test_bad_wishes_are_refused(target: Target, body: bytes) -> None:
    fill(target)
    reply = target.peer.ask("POST", f"{target.path}/views", body)
    assert reply.status == 400, reply
    assert set(reply.json()) >= {"code", "message", "hint"}


def test_views_and_reads_are_the_same_after_kill_9(own_worker: WorkerProcess) -> None:
    peer = Peer(own_worker.url, own_worker.admin_token())
    target = Target(peer, "restarts")
    homes = [peer.ask("GET", "/v1/workers").json()["self"]["id"]]
    assert target.register(homes=homes).status == 201
    fill(target)
    winners = [[0, 6], [1, 2**64 - 1], [2, 0]]
    before = view(target, winners=winners).json()
    sealed = view(target, maps=3).json()
    frames = target.frames().tobytes()
    own_worker.restart()
    assert target.frames().tobytes() == frames
    assert view(target, winners=winners).json() == before
    assert view(target, maps=3).json() == sealed
    again = peer.ask("GET", "/v1/workers").json()["self"]
    assert again["id"] == homes[0]
    assert again["incarnation"] == 2


# -- seals ---------------------------------------------------------------------------------


def test_the_first_seal_holds(target: Target) -> None:
    peer, path = target.peer, f"{target.path}/seal"
    assert peer.ask("GET", path).status == 204
    first = tables.encode(tables.attempts([(0, 5), (1, 2**64 - 1)]))
    second = tables.encode(tables.attempts([(0, 6), (1, 0)]))
    made = peer.ask("PUT", path, first)
    assert (made.status, made.body) == (201, first)
    for body in (second, first, b""):
        again = peer.ask("PUT", path, body)
        assert (again.status, again.body) == (200, first)
    shown = peer.ask("GET", path)
    assert (shown.status, shown.body) == (200, first)


@pytest.mark.parametrize(
    "pairs", [[(0, 1), (0, 2)], [(1, 1), (0, 1)], [(2, 1), (1, 1), (2, 1)]], ids=str
)
def test_a_seal_names_one_attempt_per_map_in_order(
    target: Target, pairs: list[tuple[int, int]]
) -> None:
    body = np.array(pairs, tables.ATTEMPT).tobytes()
    check_error(target.peer.ask("PUT", f"{target.path}/seal", body), 400, "protocol")
    check_error(target.peer.ask("PUT", f"{target.path}/seal", b"odd"), 400, "protocol")
    assert target.peer.ask("GET", f"{target.path}/seal").status == 204


def test_a_seal_survives_kill_9(own_worker: WorkerProcess) -> None:
    peer = Peer(own_worker.url, own_worker.admin_token())
    target = Target(peer, "restarts")
    assert target.register().status == 201
    body = tables.encode(tables.attempts([(0, 5)]))
    assert peer.ask("PUT", f"{target.path}/seal", body).status == 201
    own_worker.restart()
    assert peer.ask("GET", f"{target.path}/seal").body == body
    reply = peer.ask("PUT", f"{target.path}/seal", tables.encode(tables.attempts([(0, 6)])))
    assert (reply.status, reply.body) == (200, body)


def test_json_of_views_is_json(target: Target) -> None:
    fill(target)
    reply = view(target, winners=[[0, 5]])
    assert reply.headers["content-type"].startswith("application/json")
    assert json.loads(reply.body)["id"]
