"""What readers see: the pure part. Which frames make a view, where each is read, what is missing.

Input is what each worker says it holds (tables of `tables.FRAME`); nothing here does I/O, so
a client, a worker and a test decide alike. A view's id never depends on places.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from crossdock.errors import ConfigError, Missing
from crossdock.wire import tables
from crossdock.wire.tables import Table

STORE: Final = "store/"
"""Names of holders begin so that are persist runs in a store, not workers."""

_ID_DOMAIN: Final = b"crossdock view 1\0"
_PLACES_DOMAIN: Final = b"crossdock places 1\0"


@dataclass(frozen=True, slots=True)
class ShuffleKey:
    """Names one generation of a shuffle."""

    job: str
    name: str
    generation: int = 0

    def digest_prefix(self) -> bytes:
        """Return bytes that differ between any two keys."""
        return b"%s\0%s\0%s" % (
            self.job.encode(),
            self.name.encode(),
            struct.pack("<I", self.generation),
        )


@dataclass(frozen=True, slots=True)
class Resolution:
    """The answer to "who holds these winners?"."""

    frames: Table
    """Every frame of the winners once, by (map, attempt, seq); dtype `tables.FRAME`."""
    holders: Mapping[str, npt.NDArray[np.bool_]]
    """Per worker id, which of `frames` it holds."""
    missing: tuple[Missing, ...]

    def only(self, keys: Table) -> "Resolution":
        """Return the part of it that is about frames with these keys."""
        part = np.isin(tables.frame_keys(self.frames).view("V16"), keys.view("V16"))
        return Resolution(self.frames[part], {w: h[part] for w, h in self.holders.items()}, ())

    def without(self, damaged: Mapping[str, Iterable[tuple[int, int, int]]]) -> "Resolution":
        """Return the same as if workers did not hold these frames (map, attempt, seq)."""
        keys = tables.frame_keys(self.frames).view("V16")
        holders = dict(self.holders)
        for worker, bad in damaged.items():
            if worker in holders:
                rows = np.array(list(bad), tables.FRAME_KEY).view("V16")
                holders[worker] = holders[worker] & ~np.isin(keys, rows)
        return Resolution(self.frames, holders, self.missing)

    def nowhere(self) -> Table:
        """Return the keys of frames that nobody holds."""
        held = np.zeros(len(self.frames), bool)
        for mask in self.holders.values():
            held |= mask
        return tables.frame_keys(self.frames[~held])

    def places(self, *, avoid: Iterable[str] = ()) -> dict[str, Table]:
        """Assign each frame to one holder; return frame keys by worker.

        Workers in `avoid` get only what nobody else holds, and the store what no other worker
        does. Who has the more frames goes first, so that a reader meets few; ties go to the
        smaller id.
        """
        shunned = set(avoid)
        open_ = np.ones(len(self.frames), bool)
        usable = dict(self.holders)
        assigned: dict[str, Table] = {}
        keys = tables.frame_keys(self.frames)

        def rank(holder: str) -> tuple[int, int]:
            gain = int((usable[holder] & open_).sum())
            worth = 0 if holder in shunned else 1 if holder.startswith(STORE) else 2
            return worth if gain else 0, gain

        while open_.any() and usable:
            best = max(sorted(usable), key=rank)
            taken = usable.pop(best) & open_
            if not taken.any():
                break
            assigned[best] = keys[taken]
            open_ &= ~taken
        return assigned


def resolve(held: Mapping[str, Table], winners: Table) -> Resolution:
    """Find the winners' frames among what workers hold.

    Args:
        held: per worker id, a table of `tables.FRAME` in any order.
        winners: a table of `tables.ATTEMPT`.
    """
    names = sorted(held)
    parts = [held[name] for name in names]
    everything = np.concatenate(parts) if parts else np.empty(0, tables.FRAME)
    owner = np.repeat(np.arange(len(names)), [len(p) for p in parts])
    wanted = np.isin(_pack(everything), _pack(winners))
    everything, owner = everything[wanted], owner[wanted]

    order = tables.sort_order(everything)
    everything, owner = everything[order], owner[order]
    first = _starts(everything, ("map", "attempt", "seq"))
    frames = everything[first]
    slot = np.cumsum(first) - 1
    holders = {}
    for i, name in enumerate(names):
        mask = np.zeros(len(frames), bool)
        mask[slot[owner == i]] = True
        holders[name] = mask
    missing = _missing(everything, frames, winners)
    return Resolution(frames, holders, missing)


def complete_attempts(held: Mapping[str, Table]) -> Table:
    """Return the sorted (map, attempt) table of all attempts of which every frame is held."""
    parts = list(held.values())
    everything = np.concatenate(parts) if parts else np.empty(0, tables.FRAME)
    candidates = np.unique(_attempts_of(everything))
    bad = {(m.map_id, m.attempt) for m in resolve(held, candidates).missing}
    keep = np.array([pair not in bad for pair in candidates.tolist()], bool)
    complete: Table = candidates[keep]
    return complete


def choose_winners(held: Mapping[str, Table], maps: int) -> tuple[Table, tuple[Missing, ...]]:
    """Apply the rule of seals: of each map's complete attempts the smallest number wins.

    Returns the winners, and the maps below `maps` that have none (attempt 0, with the reason).
    """
    complete = complete_attempts(held)
    first = _starts(complete, ("map",))
    winners = complete[first]
    winners = winners[winners["map"] < maps]
    lacking = np.setdiff1d(np.arange(maps, dtype=np.uint32), winners["map"])
    return winners, tuple(Missing(int(m), 0, "no complete attempt") for m in lacking)


def view_id(key: ShuffleKey, partitions: int, frames: Table) -> str:
    """Return the id of the view that consists of exactly these frames, in hex.

    SHA-256 over the shuffle's key, P, and per frame (map, attempt, seq, count, pieces,
    payload bytes, columns CRC, payload CRC), sorted: winners, frame counts and contents.
    """
    fields = ["map", "attempt", "seq", "count", "pieces", "payload_bytes"]
    packed = np.empty(
        len(frames),
        np.dtype([(f, tables.FRAME[f]) for f in [*fields, "columns_crc", "payload_crc"]]),
    )
    for field in packed.dtype.names or ():
        packed[field] = frames[field]
    digest = hashlib.sha256(_ID_DOMAIN + key.digest_prefix() + struct.pack("<I", partitions))
    digest.update(packed.tobytes())
    return digest.hexdigest()


def contents(frames: Table) -> dict[int, str]:
    """Return map → digest of what its attempt wrote, whatever the attempt's number.

    Equal digests mean equal frames: a map that ran again and has the same need not be read again.
    """
    fields = ["seq", "count", "pieces", "payload_bytes", "columns_crc", "payload_crc"]
    ordered = frames[tables.sort_order(frames)]
    packed = np.empty(len(ordered), np.dtype([(f, tables.FRAME[f]) for f in fields]))
    for field in fields:
        packed[field] = ordered[field]
    starts = np.flatnonzero(_starts(ordered, ("map",)))
    parts = np.split(packed, starts[1:]) if len(starts) else []
    maps = ordered["map"][starts].tolist()
    return {
        m: hashlib.sha256(p.tobytes()).hexdigest()[:32] for m, p in zip(maps, parts, strict=True)
    }


def places_digest(key: ShuffleKey, frame_keys: Table) -> str:
    """Return the name of one worker's share of an assignment, in hex; `frame_keys` sorted."""
    digest = hashlib.sha256(_PLACES_DOMAIN + key.digest_prefix())
    digest.update(frame_keys.tobytes())
    return digest.hexdigest()


def check_winners(winners: Table) -> Sequence[int]:
    """Return the maps that have more than one winner (there should be none)."""
    return [int(m) for m in winners["map"][1:][winners["map"][1:] == winners["map"][:-1]]]


def explained(missing: Sequence[Missing], notes: Sequence[str]) -> list[Missing]:
    """Add to each reason what is known of lost workers and damaged disks."""
    why = "".join(f"; {note}" for note in notes)
    return [replace(m, reason=m.reason + why) for m in missing]


def check_range(kind: str, wanted: range, top: int) -> tuple[int, int]:
    """Return (first, end) of a range that somebody wants to read.

    Raises:
        ConfigError: it has gaps, or goes beyond 0 to `top`.
    """
    if wanted.step != 1:
        raise ConfigError(f"{kind} {wanted} is not a contiguous range")
    first, last = wanted.start, max(wanted.start, wanted.stop)
    if not 0 <= first <= last <= top:
        raise ConfigError(f"{kind} {first} to {last} is outside 0 to {top}")
    return first, last


def _attempts_of(frames: Table) -> Table:
    found = np.empty(len(frames), tables.ATTEMPT)
    found["map"], found["attempt"] = frames["map"], frames["attempt"]
    return found


def _pack(rows: Table) -> npt.NDArray[np.void]:
    """Return (map, attempt) as one comparable field."""
    return _attempts_of(rows).view("V12")


def _starts(rows: Table, fields: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return where a new value of `fields` begins in sorted rows."""
    new = np.zeros(len(rows), bool)
    if len(rows):
        new[0] = True
        for field in fields:
            new[1:] |= rows[field][1:] != rows[field][:-1]
    return new


def _missing(everything: Table, frames: Table, winners: Table) -> tuple[Missing, ...]:
    """Say what each winner lacks. `everything` has duplicates, `frames` has not; both sorted."""
    attempt_first = _starts(frames, ("map", "attempt"))
    group = np.cumsum(attempt_first) - 1
    n_groups = int(attempt_first.sum())
    count = np.zeros(n_groups, np.int64)
    np.maximum.at(count, group, frames["count"].astype(np.int64))
    have = np.bincount(group, minlength=n_groups)
    top = np.zeros(n_groups, np.int64)
    np.maximum.at(top, group, frames["seq"].astype(np.int64))

    # One frame is the last, and none comes after it. Duplicates of one frame must agree; all
    # frames of an attempt must have one writer.
    lasts = np.bincount(group[frames["count"] > 0], minlength=n_groups)
    conflict = (lasts > 1) | ((count > 0) & (top >= count))
    all_group = np.cumsum(_starts(everything, ("map", "attempt"))) - 1
    same_frame = ~_starts(everything, ("map", "attempt", "seq"))
    for field in ("payload_crc", "columns_crc", "payload_bytes", "count"):
        differs = same_frame.copy()
        differs[1:] &= everything[field][1:] != everything[field][:-1]
        conflict[all_group[differs]] = True
    if len(everything):
        writer = np.ascontiguousarray(everything["writer"]).view("V16")
        other = ~_starts(everything, ("map", "attempt"))
        other[1:] &= writer[1:] != writer[:-1]
        conflict[all_group[other]] = True

    known = {
        (int(m), int(a)): g for g, (m, a) in enumerate(_attempts_of(frames[attempt_first]).tolist())
    }
    missing = []
    for m, a in winners.tolist():
        g = known.get((m, a))
        if g is None:
            missing.append(Missing(m, a, "no worker has any frame of it"))
        elif conflict[g]:
            missing.append(Missing(m, a, "two writers or contents under one attempt"))
        elif not count[g]:
            missing.append(Missing(m, a, "not committed: its last frame is missing"))
        elif have[g] != count[g]:
            missing.append(
                Missing(m, a, f"{count[g] - have[g]} of its {count[g]} frames are missing")
            )
    return tuple(missing)
