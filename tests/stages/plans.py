"""Inputs of a stage to plan for, and plans in short."""

import numpy as np

from crossdock.jobfile.model import PlanSettings
from crossdock.stages.plan import InputStatistics, Slice, plan

Inputs = dict[str, InputStatistics]

MIB = 2**20
TARGET = 100
SETTINGS = PlanSettings(target_task_bytes=TARGET, skew_factor=3, skew_floor_bytes=250)


def whole(*sizes: int) -> InputStatistics:
    """Return an input that may not be split, by partition sizes."""
    return InputStatistics(bytes=np.array(sizes, np.uint64), maps=3)


def matrix(rows: list[list[int]], *, may_split: bool = True) -> InputStatistics:
    """Return an input by block sizes: one row per partition, one column per map."""
    table = np.array(rows, np.uint64)
    blocks = {
        p: (np.flatnonzero(row).astype(np.uint32), row[row > 0]) for p, row in enumerate(table)
    }
    return InputStatistics(
        bytes=table.sum(axis=1), may_split=may_split, maps=table.shape[1], blocks=blocks
    )


def spread(*sizes: int, maps: int = 10) -> InputStatistics:
    """Return an input that may be split, each partition in even blocks of all maps."""
    return matrix([[size // maps] * maps for size in sizes])


def parts(slices: list[Slice]) -> list[tuple[int, int] | tuple[int, int, int, int]]:
    """Return slices in short: (first, stop) of partitions, and of maps."""
    return [
        (s.partitions.start, s.partitions.stop, *((s.maps.start, s.maps.stop) if s.maps else ()))
        for s in slices
    ]


def ranges(*sizes: int, settings: PlanSettings = SETTINGS, tasks: int | None = None) -> list:
    return parts(plan({"in": whole(*sizes)}, settings, tasks=tasks))


def total(inputs: Inputs) -> list[int]:
    return sum(i.bytes for i in inputs.values()).tolist()


def planned(inputs: Inputs, s: Slice) -> int:
    """Return the bytes by which the plan measures a slice."""
    if s.maps is None:
        return sum(total(inputs)[s.partitions.start : s.partitions.stop])
    blocks = [inputs[s.split_input or ""].blocks[p] for p in s.partitions]
    return sum(int(sizes[np.isin(maps, s.maps)].sum()) for maps, sizes in blocks)


def holding(inputs: Inputs, s: Slice) -> int:
    """Return how many things that cannot be cut by the plan have data in a slice."""
    if s.maps is None:
        return int(np.count_nonzero(total(inputs)[s.partitions.start : s.partitions.stop]))
    blocks = [inputs[s.split_input or ""].blocks[p] for p in s.partitions]
    return sum(int(np.isin(maps, s.maps).sum()) for maps, _ in blocks)
