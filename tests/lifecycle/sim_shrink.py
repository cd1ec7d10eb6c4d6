"""Playing a seed, and making a failure small."""

import os
from collections.abc import Collection

from sim_decisions import Decisions
from sim_loop import Violation
from sim_plan import Plan, draw
from sim_world import World

REPLAY = "CROSSDOCK_LIFECYCLE_REPLAY"


def play(plan: Plan, decide: Decisions, kept: Collection[int] | None = None) -> str:
    """Return what went wrong in a history; "" if nothing did."""
    try:
        World(plan, decide, kept=kept).run()
    except Violation as violation:
        return str(violation)
    return ""


def shrink(plan: Plan, decide: Decisions) -> list[int]:
    """Return the numbers of as few items of a failing plan as still make it fail, in some way."""
    kept = list(range(len(plan.items)))
    size = len(kept)
    while size:
        size = max(1, size // 2)
        fewer = kept
        for first in range(0, len(kept), size):
            dropped = set(kept[first : first + size])
            tried = [n for n in fewer if n not in dropped]
            if play(plan, decide, tried):
                fewer = tried
        if size == 1 and len(fewer) == len(kept):
            break
        kept = fewer
    return kept


def explain(seed: int, decide: Decisions, kept: Collection[int] | None = None) -> str:
    """Return the smallest history of a failing seed, event by event, and how to play it again."""
    plan = draw(seed)
    kept = shrink(plan, decide) if kept is None else kept
    world = World(plan, decide, kept=kept, tracing=True)
    try:
        world.run()
    except Violation as violation:
        world.loop.note(f"VIOLATION: {violation}")
    again = ",".join([str(seed), *map(str, kept)])
    return "\n".join(
        [
            (
                f"seed {seed}: {plan.workers} workers, {'an' if plan.operator else 'no'} operator, "
                f"uploads {'can' if plan.lists_uploads else 'cannot'} be listed by prefix, "
                f"listings lag {plan.lag} s, settle time "
                f"{'broken' if plan.breaks_bound else 'kept'}"
            ),
            *(
                f"{uid}: owner {owner}, begins at {begins:.2f} s"
                for uid, owner, begins in plan.jobs
            ),
            f"{len(kept)} of {len(plan.items)} items are left:",
            *world.loop.trace,
            f"replay: {REPLAY}={again} pytest {os.path.relpath(__file__ + '/..')} -s -k replay",
        ]
    )
