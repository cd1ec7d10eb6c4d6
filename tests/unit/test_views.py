"""Views: what a set of workers' frames resolves to, against a naive model."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock import views
from crossdock.errors import ProtocolError
from crossdock.views import ShuffleKey
from crossdock.wire import tables

WORKERS = ["alpha", "beta", "gamma"]
KEY = ShuffleKey("job", "words", 0)

Frame = tuple[int, int, int, int, int, int]
"""(map, attempt, seq, count, content, writer)"""


def table(frames: list[Frame]) -> np.ndarray:
    """Return a table of `tables.FRAME`; content stands for checksums and sizes."""
    rows = np.zeros(len(frames), tables.FRAME)
    for row, (m, a, seq, count, content, writer) in zip(rows, frames, strict=True):
        row["map"], row["attempt"], row["seq"], row["count"] = m, a, seq, count
        row["payload_crc"] = row["payload_bytes"] = content
        row["writer"] = np.void(bytes([writer] * 16))
    return rows


@st.composite
def attempts_of(draw: st.DrawFn) -> list[Frame]:
    """Draw the frames of one attempt, mostly whole, with all ways of being broken."""
    m, a = draw(st.integers(0, 3)), draw(st.sampled_from([0, 1, 2**63, 2**64 - 1]))
    count = draw(st.integers(1, 4))
    frames = [(m, a, s, count if s == count - 1 else 0, s + 10, m) for s in range(count)]
    kind = draw(st.sampled_from(["whole"] * 4 + ["gap", "writer", "content", "uncommitted"]))
    victim = draw(st.integers(0, count - 1))
    if kind == "gap":
        del frames[victim]
    elif kind == "uncommitted":
        del frames[-1]
    elif kind == "writer":
        frames.append((*frames[victim][:5], 99))
    elif kind == "content":
        frames.append((*frames[victim][:4], 99, m))
    return frames


@st.composite
def cluster(draw: st.DrawFn) -> dict[str, list[Frame]]:
    """Draw who holds what: each frame on one or more workers, in any order."""
    held: dict[str, list[Frame]] = {w: [] for w in WORKERS[: draw(st.integers(1, 3))]}
    for frames in draw(st.lists(attempts_of(), max_size=6)):
        for frame in frames:
            places = draw(st.sets(st.sampled_from(sorted(held)), min_size=1))
            for worker in places:
                # A worker holds one frame of a number, whatever comes after.
                if frame[:3] not in {f[:3] for f in held[worker]}:
                    held[worker].append(frame)
    return {w: draw(st.permutations(frames)) for w, frames in held.items()}


def model(held: dict[str, list[Frame]], m: int, a: int) -> str:
    """Say what an attempt lacks: "" for nothing."""
    mine = {f for frames in held.values() for f in frames if f[:2] == (m, a)}
    if not mine:
        return "no worker has any"
    if len({f[5] for f in mine}) > 1 or len({f[2] for f in mine}) < len(mine):
        return "two writers or contents"
    count = max(f[3] for f in mine)
    if not count:
        return "not committed"
    if len([f for f in mine if f[3]]) > 1 or max(f[2] for f in mine) >= count:
        return "two writers or contents"
    if {f[2] for f in mine} != set(range(count)):
        return f"{count - len(mine)} of its {count} frames"
    return ""


def encoded(held: dict[str, list[Frame]]) -> dict[str, np.ndarray]:
    return {w: table(frames) for w, frames in held.items()}


winner_maps = st.dictionaries(st.integers(0, 4), st.sampled_from([0, 1, 2**63, 2**64 - 1]))


@given(cluster(), winner_maps)
def test_resolve_equals_the_model(held: dict[str, list[Frame]], winners: dict[int, int]) -> None:
    found = views.resolve(encoded(held), tables.attempts(winners))
    reasons = {(m.map_id, m.attempt): m.reason for m in found.missing}
    expected = {(m, a): why for m, a in winners.items() if (why := model(held, m, a))}
    assert set(reasons) == set(expected)
    for pair, why in expected.items():
        assert why in reasons[pair]
    wanted = set(winners.items())
    numbers = {f[:3] for frames in held.values() for f in frames if f[:2] in wanted}
    assert tables.frame_keys(found.frames).tolist() == sorted(numbers)
    for worker, frames in held.items():
        mask = found.holders[worker]
        mine = {f[:3] for f in frames if f[:2] in wanted}
        assert set(tables.frame_keys(found.frames[mask]).tolist()) == mine


@given(cluster(), winner_maps, st.sets(st.sampled_from(WORKERS)))
def test_places_give_each_frame_once(
    held: dict[str, list[Frame]], winners: dict[int, int], avoid: set[str]
) -> None:
    found = views.resolve(encoded(held), tables.attempts(winners))
    places = found.places(avoid=avoid)
    assigned = [key for keys in places.values() for key in keys.tolist()]
    holders = defaultdict(set)
    for worker, frames in held.items():
        for frame in frames:
            holders[frame[:3]].add(worker)
    assert len(assigned) == len(set(assigned))
    assert set(assigned) == set(tables.frame_keys(found.frames).tolist())
    for worker, keys in places.items():
        if worker in avoid:
            assert all(holders[key] <= avoid for key in keys.tolist()), "others have copies"
        assert keys.tolist() == sorted(keys.tolist())
        assert len(keys)
        assert all(worker in holders[key] for key in keys.tolist())


@given(cluster(), winner_maps, st.data())
def test_a_part_without_what_is_damaged(
    held: dict[str, list[Frame]], winners: dict[int, int], data: st.DataObject
) -> None:
    found = views.resolve(encoded(held), tables.attempts(winners))
    keys = tables.frame_keys(found.frames)
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys))))
    part = found.only(keys[chosen.astype(bool)])
    assert tables.frame_keys(part.frames).tolist() == keys[chosen.astype(bool)].tolist()
    some = st.sets(st.sampled_from(keys.tolist())) if len(keys) else st.just(set())
    damaged = data.draw(st.dictionaries(st.sampled_from([*WORKERS, "gone"]), some))
    sound = part.without(damaged)
    for worker, mask in part.holders.items():
        mine = set(tables.frame_keys(part.frames[mask]).tolist())
        left = set(tables.frame_keys(sound.frames[sound.holders[worker]]).tolist())
        assert left == mine - damaged.get(worker, set())
    nowhere = set(sound.nowhere().tolist())
    placed = {key for table_ in sound.places().values() for key in table_.tolist()}
    assert placed.isdisjoint(nowhere)
    assert placed | nowhere == set(tables.frame_keys(part.frames).tolist())


@given(cluster(), st.integers(0, 5))
def test_choose_winners_equals_the_model(held: dict[str, list[Frame]], maps: int) -> None:
    pairs = sorted({f[:2] for frames in held.values() for f in frames})
    complete = [pair for pair in pairs if not model(held, *pair)]
    assert views.complete_attempts(encoded(held)).tolist() == complete
    expected: dict[int, int] = {}
    for m, a in complete:
        if m < maps:
            expected.setdefault(m, a)
    winners, lacking = views.choose_winners(encoded(held), maps)
    assert dict(winners.tolist()) == expected
    assert [m.map_id for m in lacking] == [m for m in range(maps) if m not in expected]


@st.composite
def sound_attempts(draw: st.DrawFn) -> list[Frame]:
    maps = draw(st.dictionaries(st.integers(0, 5), st.integers(1, 3), min_size=1))
    return [
        (m, 0, s, count if s == count - 1 else 0, draw(st.integers(1, 9)), m)
        for m, count in maps.items()
        for s in range(count)
    ]


@given(sound_attempts(), st.data())
def test_the_id_does_not_depend_on_places(frames: list[Frame], data: st.DataObject) -> None:
    def spread() -> dict[str, np.ndarray]:
        held: dict[str, list[Frame]] = {w: [] for w in WORKERS}
        for frame in data.draw(st.permutations(frames)):
            for worker in data.draw(st.sets(st.sampled_from(WORKERS), min_size=1)):
                held[worker].append(frame)
        return encoded(held)

    winners = tables.attempts({f[0]: 0 for f in frames})
    ids = {views.view_id(KEY, 4, views.resolve(spread(), winners).frames) for _ in range(3)}
    assert len(ids) == 1


def test_the_id_depends_on_all_else() -> None:
    base = table([(1, 2, 0, 0, 5, 1), (1, 2, 1, 2, 6, 1)])
    ids = [views.view_id(KEY, 4, base)]
    for field in ("map", "attempt", "seq", "count", "pieces", "payload_bytes",
                  "columns_crc", "payload_crc"):  # fmt: skip
        other = base.copy()
        other[field][1] += 1
        ids.append(views.view_id(KEY, 4, other))
    ids.append(views.view_id(KEY, 5, base))
    ids += [
        views.view_id(ShuffleKey(*key), 4, base)
        for key in [("job", "words", 1), ("job2", "words", 0), ("jobw", "ords", 0)]
    ]
    assert len(set(ids)) == len(ids)
    rewritten = base.copy()
    rewritten["writer"] = np.void(b"x" * 16)
    assert views.view_id(KEY, 4, rewritten) == ids[0]


def test_the_id_never_changes() -> None:
    """Clients in other languages, and restarts with a newer version, must agree."""
    frames = table([(1, 2, 0, 0, 5, 1), (1, 2, 1, 2, 6, 1)])
    assert views.view_id(KEY, 4, frames) == (
        "de83b71f33cb16bdb6d9f10a4dd1c17fa0015e586f4ab3ccf630b257a2bdf9e6"
    )
    assert views.places_digest(KEY, tables.frame_keys(frames)) == (
        "4e9822ba253c0fc8c807dd8142c7da3712ebd25e0298b24bae657c84b9bbab1a"
    )


def test_more_frames_go_first() -> None:
    held = {
        "a": table([(0, 0, 0, 1, 1, 0)]),
        "b": table([(0, 0, 0, 1, 1, 0), (1, 0, 0, 1, 1, 1)]),
        "c": table([(2, 0, 0, 1, 1, 2)]),
    }
    places = views.resolve(held, tables.attempts({0: 0, 1: 0, 2: 0})).places()
    assert {w: len(k) for w, k in places.items()} == {"b": 2, "c": 1}


def test_frames_after_the_last_are_no_whole_attempt() -> None:
    """A frame numbered past the count is a contradiction, never quietly left out."""
    held = {"a": table([(0, 0, 0, 0, 1, 0), (0, 0, 1, 2, 1, 0), (0, 0, 2, 0, 1, 0)])}
    (missing,) = views.resolve(held, tables.attempts({0: 0})).missing
    assert "two writers or contents" in missing.reason


@pytest.mark.parametrize("field", ["payload_crc", "columns_crc", "payload_bytes", "count"])
def test_copies_that_differ_in_one_field_are_no_copies(field: str) -> None:
    one = table([(0, 0, 0, 0, 5, 1), (0, 0, 1, 2, 6, 1)])
    other = one.copy()
    winners = tables.attempts({0: 0})
    assert not views.resolve({"a": one, "b": other}, winners).missing
    other[field][0] += 1
    (missing,) = views.resolve({"a": one, "b": other}, winners).missing
    assert "two writers or contents" in missing.reason


def test_an_avoided_worker_serves_what_nobody_else_has() -> None:
    held = {"a": table([(0, 0, 0, 1, 1, 0)]), "b": table([])}
    found = views.resolve(held, tables.attempts({0: 0}))
    assert {w: len(k) for w, k in found.places(avoid=["a"]).items()} == {"a": 1}


def test_of_equal_holders_the_smaller_id_serves() -> None:
    frames = table([(0, 0, 0, 1, 1, 0)])
    held = {"b": frames, "a": frames, "c": frames}
    assert list(views.resolve(held, tables.attempts({0: 0})).places()) == ["a"]


def test_many_attempts_resolve() -> None:
    frames = np.zeros(200_000, tables.FRAME)
    frames["map"] = np.arange(len(frames)) // 2
    frames["seq"] = np.arange(len(frames)) % 2
    frames["count"] = 2 * frames["seq"]
    winners = np.zeros(100_000, tables.ATTEMPT)
    winners["map"] = np.arange(100_000)
    found = views.resolve({"a": frames[::2], "b": frames[1::2], "c": frames}, winners)
    assert not found.missing
    assert {w: len(k) for w, k in found.places().items()} == {"c": 200_000}


def test_no_winners_and_no_workers() -> None:
    for held in ({}, {"a": table([])}, {"a": table([(0, 0, 0, 1, 1, 0)])}):
        found = views.resolve(held, tables.attempts({}))
        assert (len(found.frames), found.places(), found.missing) == (0, {}, ())
    assert len(views.view_id(KEY, 1, table([]))) == 64


def test_winners_are_checked() -> None:
    assert views.check_winners(tables.attempts([(3, 0), (1, 5), (3, 7)])) == [3]
    assert views.check_winners(tables.attempts({1: 2, 3: 4})) == []
    for wrong in ({-1: 0}, {2**32: 0}, {0: 2**64}, {0: -1}):
        with pytest.raises(ProtocolError):
            tables.attempts(wrong)
