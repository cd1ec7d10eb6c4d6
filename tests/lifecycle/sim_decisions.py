"""Everything that the simulated actors decide by; a mutant replaces some of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crossdock.lifecycle import deletion, facts, lease, runs, stopping, sweep, words
from crossdock.lifecycle.timing import Timing
from crossdock.store import layout

# Rates of clocks are drawn from this range: their quotient is below 1 + clock_margin.
SLOWEST, FASTEST = 0.96, 1.04
TIMING = Timing(settle_seconds=3.0, clock_margin=0.1, relist_seconds=0.8)
LEASE, GRACE = 6.0, 4.0
SWEEP_GRACE = 12.0
MOST_LAG = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """The functions of `crossdock.lifecycle`."""

    timing: Timing = TIMING
    sweep_grace: float = SWEEP_GRACE
    surroundings: Callable[..., lease.Surroundings] = lease.surroundings
    lease_state: Callable[..., lease.Lease] = lease.lease_state
    right_since: Callable[..., float] = lease.right_since
    may_write: Callable[..., bool] = lease.may_write
    may_publish: Callable[..., bool] = lease.may_publish
    may_end_damaged: Callable[..., bool | None] = lease.may_end_damaged
    must_clean: Callable[..., bool] = lease.must_clean
    rank_of: Callable[..., int] = lease.rank_of
    is_stale: Callable[..., bool] = facts.is_stale
    joined: Callable[..., facts.Facts] = facts.joined
    to_clear: Callable[..., dict[str, range]] = facts.to_clear
    is_turn_to_clear: Callable[..., bool] = lease.is_turn_to_clear
    restored: Callable[[facts.Facts], facts.Facts] = lambda kept: kept
    """What a worker that starts again reads from its disk."""
    mended: Callable[[facts.Facts, Any], facts.Facts] = lambda kept, noted: facts.joined(
        kept, facts.Facts(released=dict(noted))
    )
    """What one knows that reads files again which were damaged, and releases noted beside them."""
    unheard: Callable[[float], words.Heard] = words.unheard
    silence_to_keep: Callable[..., float] = words.silence_to_keep
    voided: Callable[[float], float] = lambda _: 0.0
    """What a word leaves of the silence that was kept."""
    resumed: Callable[[float, float], float] = lambda kept, _: kept
    """How long an owner was silent, for a worker that starts again: of what it has kept, and of
    the time in which it was away."""
    direct: Callable[..., words.Heard] = words.direct
    relayed: Callable[..., words.Heard] = words.relayed
    leftover: Callable[..., runs.Leftover] = runs.leftover
    may_forget: Callable[..., bool] = runs.may_forget
    aborts_uploads: bool = True
    """Whether a deletion looks for uploads."""
    idle_since: Callable[[float | None, float], float] = stopping.idle_since
    stopping: Callable[..., Any] = stopping.Stopping
    deletion: Callable[..., Any] = deletion.Deletion
    job_prefix: Callable[[str, str], str] = layout.job_prefix
    live_jobs: Callable[..., sweep.LiveJobs | None] = sweep.live_jobs
    judge: Callable[..., sweep.Verdict] = sweep.judge
    judge_key: Callable[..., sweep.Verdict] = sweep.judge_key
    spent_intents: Callable[..., list[str]] = sweep.spent_intents
