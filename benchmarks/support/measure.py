"""Ratios between alternating runs: the only figures worth quoting on a shared machine."""

import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Figure:
    """A ratio of two measured things, and what they were."""

    key: str
    ratio: float
    ours: list[float]
    theirs: list[float]
    unit: str

    def show(self) -> str:
        ours = statistics.median(self.ours)
        theirs = statistics.median(self.theirs)
        return (
            f"{self.key:22} {self.ratio:7.3f}   ours {ours:9.1f} ({min(self.ours):.1f}"
            f"-{max(self.ours):.1f}), baseline {theirs:9.1f} ({min(self.theirs):.1f}"
            f"-{max(self.theirs):.1f}) {self.unit}"
        )


def alternate(
    key: str, ours: Callable[[], float], theirs: Callable[[], float], *, runs: int, unit: str
) -> Figure:
    """Run both in turn, once for warming and then `runs` times; the median of the pairs' ratios."""
    ours()
    theirs()
    pairs = [(ours(), theirs()) for _ in range(runs)]
    ratio = statistics.median(a / b for a, b in pairs)
    return Figure(key, ratio, [a for a, _ in pairs], [b for _, b in pairs], unit)


def in_threads(works: list[Callable[[], int]]) -> float:
    """Run the works at once, one thread each; return MiB/s of the bytes that they return."""
    start = threading.Barrier(len(works) + 1)

    def run(work: Callable[[], int]) -> int:
        start.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        jobs = [pool.submit(run, work) for work in works]
        start.wait()
        began = time.perf_counter()
        total = sum(job.result() for job in jobs)
        return total / MIB / (time.perf_counter() - began)
