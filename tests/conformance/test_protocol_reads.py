"""Places and reads: order, exactness, cursors, skips, ranges; stateless reads; sizes."""

from dataclasses import replace

import numpy as np
import pytest
from test_protocol_jobs import check_error

from crossdock.wire import tables
from raw import Batch, Piece, Target, cursor_behind

Key = tuple[int, int, int]
Place = tuple[int, ...]

FRAMES: dict[Key, list[Piece]] = {
    (0, 7, 0): [(0, b"a", 1), (1, b"bc", 2), (1, b"", 0), (1, b"def", 3), (7, b"g", 1)],
    (0, 7, 1): [(1, b"hijk", 4), (3, b"lm", 1)],
    (1, 2**64 - 1, 0): [(1, b"nop", 1), (6, b"q" * 5, 1)],
    (5, 3, 0): [],
    (2**32 - 1, 0, 0): [(0, b"rs", 1), (1, b"tuv", 9), (7, b"", 0)],
}
LOSERS: dict[Key, list[Piece]] = {
    (0, 8, 0): [(1, b"LOSER", 1)],
    (1, 0, 0): [(0, b"LOSER", 1), (7, b"LOSER", 1)],
    (9, 0, 0): [(1, b"LOSER", 1)],
}
WINNERS = [(0, 7), (1, 2**64 - 1), (5, 3), (2**32 - 1, 0)]


def expected() -> list[tuple[Place, bytes]]:
    """Return every piece of the winners, in the order of reads."""
    return sorted(
        ((partition, m, a, s, position), data)
        for (m, a, s), pieces in FRAMES.items()
        for position, (partition, data, _) in enumerate(pieces)
    )


@pytest.fixture
def filled(target: Target) -> Target:
    """A shuffle with winners and losers, pushed out of order."""
    lasts = {(m, a): s for m, a, s in sorted(FRAMES | LOSERS)}
    for (m, a, s), pieces in reversed((LOSERS | FRAMES).items()):
        count = s + 1 if lasts[m, a] == s else 0
        data = target.frame(pieces, map_id=m, attempt=a, seq=s, count=count)
        assert target.push(data).status == 200
    return target


@pytest.fixture
def places(filled: Target) -> str:
    """The URL path of the registered places of the winners."""
    keys = filled.keys(filled.frames(WINNERS))
    assert len(keys) == len(FRAMES)
    path, reply = filled.register_places(keys)
    assert reply.status == 200
    return path


def read(target: Target, path: str, query: str = "") -> Batch:
    reply = target.peer.ask("GET", f"{path}/blocks?{query}")
    assert reply.status == 200, reply
    return Batch.parse(reply.body)


def read_all(target: Target, path: str, query: str = "") -> list[tuple[Place, bytes]]:
    """Read batch after batch."""
    found: list[tuple[Place, bytes]] = []
    cursor = ""
    while True:
        batch = read(target, path, query + cursor)
        pieces = batch.pieces()
        assert pieces or batch.end
        found += pieces
        if batch.end:
            return found
        cursor = f"&cursor={cursor_behind(pieces[-1][0])}"


def test_a_read_has_every_piece_of_the_winners_once(filled: Target, places: str) -> None:
    batch = read(filled, places)
    assert batch.end
    assert batch.pieces() == expected()
    assert sum(batch.columns.rows.tolist()) == 24


def test_every_bound_cuts_the_same_pieces(filled: Target, places: str) -> None:
    total = sum(len(data) for _, data in expected())
    for max_bytes in range(total + 2):
        assert read_all(filled, places, f"max_bytes={max_bytes}") == expected()
    for max_bytes in range(1, total + 1):
        batch = read(filled, places, f"max_bytes={max_bytes}")
        assert len(batch.payload) <= max(max_bytes, 1)
        assert batch.pieces() == expected()[: len(batch.pieces())]


def test_a_read_goes_on_behind_any_piece(filled: Target, places: str) -> None:
    pieces = expected()
    for i, (place, _) in enumerate(pieces):
        found = read(filled, places, f"cursor={cursor_behind(place)}")
        assert found.pieces() == pieces[i + 1 :]
        at = ".".join(map(str, place))
        assert read(filled, places, f"cursor={at}").pieces() == pieces[i:]


def test_a_cursor_need_not_be_that_of_a_piece(filled: Target, places: str) -> None:
    pieces = expected()
    for cursor in [
        (0, 0, 0, 0, 0), (1, 0, 6, 99, 99), (1, 0, 7, 0, 99), (1, 0, 7, 9, 0), (1, 3, 0, 0, 0),
        (2, 0, 0, 0, 0), (7, 2**32 - 1, 2**64 - 1, 2**32 - 1, 2**32 - 1), (8, 0, 0, 0, 0),
    ]:  # fmt: skip
        text = ".".join(map(str, cursor))
        rest = [p for p in pieces if p[0] >= cursor]
        assert read(filled, places, f"cursor={text}").pieces() == rest, text


def test_a_batch_that_broke_off_goes_on_from_any_byte(filled: Target, places: str) -> None:
    for query in ("", "partitions=1-7", f"cursor={cursor_behind(expected()[2][0])}"):
        whole = read(filled, places, query)
        for skip in range(len(whole.payload) + 1):
            rest = read(filled, places, f"{query}&skip={skip}")
            assert rest.skip == skip
            assert rest.payload == whole.payload[skip:]
            assert rest.columns.encode() == whole.columns.encode()
            assert rest.end == whole.end
        beyond = f"{places}/blocks?{query}&skip={len(whole.payload) + 1}"
        check_error(filled.peer.ask("GET", beyond), 400, "protocol")


@pytest.mark.parametrize("first", range(9))
def test_partition_ranges(filled: Target, places: str, first: int) -> None:
    for last in range(first, 9):
        wanted = [p for p in expected() if first <= p[0][0] < last]
        assert read_all(filled, places, f"partitions={first}-{last}") == wanted
        assert read_all(filled, places, f"partitions={first}-{last}&max_bytes=3") == wanted
    if first < 8:
        wanted = [p for p in expected() if p[0][0] == first]
        assert read_all(filled, places, f"partitions={first}") == wanted


def test_map_ranges(filled: Target, places: str) -> None:
    bounds = [0, 1, 2, 5, 6, 2**32 - 1, 2**32]
    for first in bounds:
        for last in [b for b in bounds if b >= first]:
            wanted = [p for p in expected() if first <= p[0][1] < last]
            query = f"partitions=0-8&maps={first}-{last}&max_bytes=4"
            assert read_all(filled, places, query) == wanted, query


BAD_QUERIES = [
    "partitions=5-3", "partitions=0-9", "partitions=8", "partitions=-1", "partitions=x",
    "partitions=", "partitions=1-2-3", "partitions=0-99999999999", "partitions=0x1",
    "partitions=%D9%A3", "maps=2-1", "maps=0-4294967297", "maps=x", "maps=1,2", "cursor=",
    "cursor=1", "cursor=0.0.0.0", "cursor=0.0.0.0.0.0", "cursor=-1.0.0.0.0", "cursor=a.b.c.d.e",
    "max_bytes=-1", "max_bytes=x", "max_bytes=99999999999999999999999", "skip=-1", "skip=x",
    "skip=1000000",
]  # fmt: skip


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_bad_reads_are_refused(filled: Target, places: str, query: str) -> None:
    check_error(filled.peer.ask("GET", f"{places}/blocks?{query}"), 400, "protocol")
    attempts = tables.encode(tables.attempts(WINNERS))
    reply = filled.peer.ask("POST", f"{filled.path}/blocks?{query}", attempts)
    check_error(reply, 400, "protocol")


HUGE = [
    f"cursor={10**30}.0.0.0.0", f"cursor=1.{10**30}.0.0.0", f"cursor=1.0.{10**30}.0.0",
    f"cursor=1.0.7.{10**30}.0", f"cursor=1.0.7.0.{10**30}", "cursor=" + "9" * 4000 + ".0.0.0.0",
    f"cursor=1.0.7.0.{2**63}", f"cursor={2**32}.0.0.0.0", "cursor=%2B1.0.0.0.0",
    "cursor=1_0.0.0.0.0",
]  # fmt: skip


@pytest.mark.parametrize("query", HUGE, ids=lambda q: q[:40])
def test_cursors_out_of_range_are_refused(filled: Target, places: str, query: str) -> None:
    reply = filled.peer.ask("GET", f"{places}/blocks?{query}")
    check_error(reply, 400, "protocol")


# -- places --------------------------------------------------------------------------------


def test_places_answer_their_statistics(filled: Target) -> None:
    keys = filled.keys(filled.frames(WINNERS))
    for _ in range(2):  # idempotent
        _, reply = filled.register_places(keys)
        stats = tables.decode(tables.STATISTICS, reply.body, what="statistics")
        assert reply.headers["crossdock-partitions"] == "8"
        assert stats["bytes"].tolist() == [3, 15, 0, 2, 0, 0, 5, 1]
        assert stats["rows"].tolist() == [2, 19, 0, 1, 0, 0, 1, 1]
        assert stats["blocks"].tolist() == [2, 3, 0, 1, 0, 0, 1, 2]


def test_places_are_named_by_their_own_digest(filled: Target) -> None:
    peer, keys = filled.peer, filled.keys(filled.frames(WINNERS))
    body = tables.encode(keys)
    other = replace(filled, generation=1)
    for digest in ("0" * 64, "x", filled.places_digest(keys)[:-1], other.places_digest(keys),
                   filled.places_digest(keys[:-1])):  # fmt: skip
        check_error(peer.ask("PUT", f"{filled.path}/places/{digest}", body), 400, "protocol")
        reply = peer.ask("GET", f"{filled.path}/places/{digest}/blocks")
        check_error(reply, 404, "places_unknown")
    reply = peer.ask("PUT", f"{filled.path}/places/{filled.places_digest(keys)}", body[:-1])
    check_error(reply, 400, "protocol")


def test_places_of_frames_that_are_elsewhere_are_refused(filled: Target) -> None:
    keys = filled.keys(filled.frames(WINNERS))
    for change in ({"map": 1234}, {"attempt": 1234}, {"seq": 1234}):
        wrong = np.append(keys, keys[-1:])
        for field, value in change.items():
            wrong[field][-1] = value
        wrong = wrong[tables.sort_order(wrong)]
        path, reply = filled.register_places(wrong)
        check_error(reply, 404, "places_unknown")
        check_error(filled.peer.ask("GET", f"{path}/blocks"), 404, "places_unknown")


def test_places_of_an_aborted_attempt_are_unknown_again(target: Target) -> None:
    """A reader that made a view of it anyway is told, and never served other bytes."""
    assert target.push(target.frame(count=0)).status == 200
    keys = target.keys(target.frames())
    assert target.register_places(keys)[1].status == 200
    assert target.peer.ask("DELETE", f"{target.path}/attempts/0/0").status == 200
    assert target.register_places(keys)[1].status in {200, 404}
    other = target.frame([(1, b"xyz", 1)], map_id=1)
    assert target.push(other).status == 200
    path = f"{target.path}/places/{target.places_digest(keys)}"
    reply = target.peer.ask("GET", f"{path}/blocks")
    if reply.status == 200:
        assert [data for _, data in Batch.parse(reply.body).pieces()] == [b"abc"]
    else:
        check_error(reply, 404, "places_unknown")


def test_places_without_frames_read_as_empty(filled: Target) -> None:
    path, reply = filled.register_places(np.empty(0, tables.FRAME_KEY))
    assert reply.status == 200
    batch = read(filled, path)
    assert batch.end
    assert batch.pieces() == []


def test_sizes_of_every_block(filled: Target, places: str) -> None:
    reply = filled.peer.ask("GET", f"{places}/sizes?partitions=0-8")
    sizes = tables.decode(tables.BLOCK, reply.body, what="sizes")
    assert sizes[["partition", "map", "bytes"]].tolist() == [
        (0, 0, 1), (0, 2**32 - 1, 2), (1, 0, 9), (1, 1, 3), (1, 2**32 - 1, 3), (3, 0, 2),
        (6, 1, 5), (7, 0, 1), (7, 2**32 - 1, 0),
    ]  # fmt: skip
    assert sizes["rows"].tolist() == [1, 1, 9, 1, 9, 1, 1, 1, 0]
    reply = filled.peer.ask("GET", f"{places}/sizes?partitions=3-7")
    assert tables.decode(tables.BLOCK, reply.body, what="")["partition"].tolist() == [3, 6]
    for query in ("", "?partitions=0-9", "?partitions=x", "?partitions=4-3"):
        check_error(filled.peer.ask("GET", f"{places}/sizes{query}"), 400, "protocol")


# -- reads without a view ------------------------------------------------------------------


def post(target: Target, attempts: list[tuple[int, int]], query: str = "") -> Batch:
    body = tables.encode(tables.attempts(attempts))
    reply = target.peer.ask("POST", f"{target.path}/blocks?{query}", body)
    assert reply.status == 200, reply
    return Batch.parse(reply.body)


def test_a_read_may_carry_its_own_attempts(filled: Target) -> None:
    assert post(filled, WINNERS).pieces() == expected()
    assert post(filled, [(5, 3)]).pieces() == []
    assert post(filled, []).pieces() == []
    found = post(filled, [(0, 7), (9, 0)], "partitions=1-2&maps=0-9").pieces()
    assert found == [p for p in expected() if p[0][0] == 1 and p[0][1] == 0]
    found, cursor = [], ""
    while True:
        batch = post(filled, WINNERS, f"max_bytes=4{cursor}")
        found += batch.pieces()
        if batch.end:
            break
        cursor = f"&cursor={cursor_behind(found[-1][0])}"
    assert found == expected()


def test_what_a_read_of_attempts_lacks_is_named_exactly(filled: Target) -> None:
    assert filled.push(filled.frame(map_id=20, attempt=1, seq=0, count=0)).status == 200
    assert filled.push(filled.frame(map_id=21, attempt=1, seq=1, count=2)).status == 200
    attempts = [*WINNERS, (0, 9), (20, 1), (21, 1), (77, 0)]
    body = tables.encode(tables.attempts(attempts))
    reply = filled.peer.ask("POST", f"{filled.path}/blocks", body)
    check_error(reply, 409, "attempts_elsewhere")
    missing = {(m, a): why for m, a, why in reply.json()["missing"]}
    assert set(missing) == {(0, 9), (20, 1), (21, 1), (77, 0)}
    assert all(missing.values())
    partial = post(filled, attempts, "partial=true")
    rest = [p for p in partial.pieces() if p not in expected()]
    assert [(place[1:4], data) for place, data in rest] == [
        ((20, 1, 0), b"abc"),
        ((21, 1, 1), b"abc"),
    ]
    reply = filled.peer.ask("POST", f"{filled.path}/blocks", body[:-1])
    check_error(reply, 400, "protocol")


# -- large ones ----------------------------------------------------------------------------


def test_blocks_of_many_sizes_come_back_as_they_were(target: Target) -> None:
    """From pieces of nothing to some of a MiB, so that every way of sending is used."""
    rng = np.random.default_rng(5)
    wide = replace(target, name="wide", partitions=64)
    written: dict[tuple[int, int], bytes] = {}
    for map_id in range(12):
        sizes = rng.choice([0, 1, 100, 1000, 20_000, 300_000], 20)
        chosen = np.sort(rng.integers(0, 64, 20)).tolist()
        pieces = [(p, rng.bytes(int(n)), 1) for p, n in zip(chosen, sizes, strict=True)]
        for p, data, _ in pieces:
            written[p, map_id] = written.get((p, map_id), b"") + data
        assert wide.push(wide.frame(pieces, map_id=map_id), expect=bool(map_id % 2)).status == 200
    path, _ = wide.register_places(wide.keys(wide.frames()))
    for query in ("", "max_bytes=100000", "max_bytes=1000000&partitions=10-50"):
        first, last = (10, 50) if "partitions" in query else (0, 64)
        found: dict[tuple[int, int], bytes] = {}
        for place, data in read_all(wide, path, query):
            found[place[0], place[1]] = found.get((place[0], place[1]), b"") + data
        assert found == {k: v for k, v in written.items() if first <= k[0] < last}
