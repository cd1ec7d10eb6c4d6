"""Rounds: what is killed, and when, from a seed; and how one is played."""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, Final

from chaos_client import OWNER_MARKS
from chaos_proxy import KINDS, SETTLE_SECONDS, ChaosProxy, Trap
from chaos_scene import FOLDER, ChaosWorker, Left, Scene, settings

LEASE_SECONDS: Final = 8.0
GRACE_SECONDS: Final = 1.0
WORK_SECONDS: Final = 120.0
END_SECONDS: Final = 300.0
Point = tuple[str, str]
"""A request and when of it, or a step of the owner and "mark"."""
POINTS: Final[list[Point]] = [
    *((kind, when) for kind in KINDS for when in ("before", "after", "late")),
    *((mark, "mark") for mark in OWNER_MARKS),
]
VICTIMS: Final = [
    ("worker",), ("owner",), ("task",), ("worker", "owner"), ("worker", "task"),
    ("owner", "task"), ("worker", "other"), ("owner", "cleaner"),
]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One round."""

    seed: int
    number: int
    point: tuple[str, str]
    victims: tuple[str, ...]
    """cleaner: the worker that deletes what the dead owner has left, while it does."""
    persistence: str
    most_bytes: int
    skip: int
    delay: float
    away: float
    """Seconds until a killed worker is started again."""
    again: int = 0
    """How often it was played before, and nobody was killed at its point."""

    @property
    def uid(self) -> str:
        return f"job-{self.seed}-{self.number}" + (f"-{self.again}" if self.again else "")

    def once_more(self) -> "Plan":
        """Return the round as it is played next, so that its point comes more surely."""
        return replace(
            self, again=self.again + 1, skip=0, most_bytes=60_000, victims=("worker",),
            persistence="Eager" if self.again % 2 else "OnPressure",
        )  # fmt: skip

    @property
    def bound(self) -> float:
        """Seconds from the end of the job to nothing left, if no worker is away meanwhile."""
        silence = LEASE_SECONDS + GRACE_SECONDS if "owner" in self.victims else 0
        return silence + SETTLE_SECONDS + WORK_SECONDS


def plans(seed: int, count: int, points: Sequence[Point]) -> list[Plan]:
    """Return the rounds of a seed.

    All points come up before one does again, and each with all victims before one of these does.
    """
    rng = random.Random(seed)
    order: list[tuple[Point, tuple[str, ...]]] = []
    first = {point: rng.randrange(len(VICTIMS)) for point in points}
    for cycle in range(-(-count // len(points))):
        more = [(p, VICTIMS[(first[p] + cycle) % len(VICTIMS)]) for p in points]
        rng.shuffle(more)
        order += more
    return [
        Plan(
            seed, number, point, victims,
            rng.choice(["OnPressure", "Eager", "BeforeAck"]), rng.choice([300, 20_000, 60_000]),
            rng.choice([0, 0, 1, 2]), rng.choice([0.0, rng.uniform(0, 0.3)]), rng.uniform(0, 1.5),
        )
        for number, (point, victims) in enumerate(order[:count])
    ]  # fmt: skip


@dataclass
class Tally:
    """What all rounds came to."""

    server: str = ""
    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    points: set[Point] = field(default_factory=set)
    """That rounds were played for."""
    fired: set[Point] = field(default_factory=set)
    """At which somebody was killed."""
    faults: int = 0
    checked_bytes: int = 0
    slowest_seconds: float = 0.0
    left: Left = field(default_factory=Left)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def line(self) -> str:
        """Return the summary."""
        each = ", ".join(f"{n} {who}" for who, n in sorted(self.kills.items()))
        left = self.left
        return (
            f"{self.rounds} rounds on {self.server}, {self.kills.total()} kills ({each}) at "
            f"{len(self.fired)} of {len(self.points)} kill points, {self.faults} faults injected, "
            f"{self.checked_bytes} bytes checked, slowest cleanup "
            f"{self.slowest_seconds:.1f} s, left: {len(left.objects)} objects, "
            f"{len(left.uploads)} uploads, {len(left.files)} files"
        )


class Round:
    """One that is being played."""

    def __init__(self, scene: Scene, plan: Plan, tally: Tally) -> None:
        self.scene = scene
        self.plan = plan
        self._tally = tally
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._rng = random.Random(f"{plan.seed}/{plan.number}")
        self.said: list[str] = []
        self.killed: set[str] = set()
        self._struck = 0
        """Processes that lived, and were killed."""
        self._last = 0.0
        """When somebody was killed or came back last."""
        self._owner_died = 0.0
        self._revivals: list[object] = []

    def play(self) -> None:
        """Fail with what is wrong, and how to replay it."""
        kind, when = self.plan.point
        first = [v for v in self.plan.victims if v != "cleaner"]
        traps = []
        if when != "mark":
            traps.append(
                Trap(self.plan.uid, kind, when, lambda p: self._fire(first, p), self.plan.skip)
            )
        if "cleaner" in self.plan.victims:
            traps.append(self._second_trap())
        weather = self.scene.weather
        with weather.lock:
            weather.traps += traps
        try:
            with self._client("owner") as owner:
                code = self._follow(owner, first)
            self._check_end(code)
            self._wait_clean()
        finally:
            with weather.lock:
                weather.traps = [t for t in weather.traps if t not in traps]
            for process in self._processes.values():
                process.kill()
                process.communicate()

    def _second_trap(self) -> Trap:
        kind = self._rng.choice(["list", "delete", "list uploads"])

        def spring(proxy: ChaosProxy) -> None:
            self._kill(["worker"], proxy)

        trap = Trap(self.plan.uid, kind, self._rng.choice(["before", "after"]), spring)
        fits = trap.fits
        trap.fits = lambda request: "owner" in self.killed and fits(request)  # type: ignore[method-assign]
        return trap

    def _follow(self, owner: "subprocess.Popen[str]", first: list[str]) -> int:
        """Read what the owner says, and kill at its mark; return its exit code."""
        kind, when = self.plan.point
        watchdog = threading.Timer(END_SECONDS, owner.kill)
        watchdog.start()
        out: IO[str] = owner.stdout  # type: ignore[assignment]
        try:
            for line in out:
                mark = line.strip()
                self.said.append(mark)
                if mark == "registered" and "task" in self.plan.victims:
                    self._start("task")
                if when == "mark" and mark == kind:
                    threading.Event().wait(self.plan.delay)
                    self._fire(first, None)
            return owner.wait(END_SECONDS)
        finally:
            watchdog.cancel()
            self._last = max(self._last, time.monotonic())

    def _check_end(self, code: int) -> None:
        for mark in self.said:
            if mark.startswith("checked "):
                with self._tally.lock:
                    self._tally.checked_bytes += int(mark.split()[1])
        if "owner" not in self.killed:
            error = self._processes["owner"].stderr.read()  # type: ignore[union-attr]
            assert code == 0, f"the owner ended with {code} after {self.said}:\n{error}"
            assert self.said[-1] == "ended"

    def _wait_clean(self) -> None:
        while True:
            left = self.scene.left(self.plan.uid)
            for revival in self._revivals:
                revival.result()  # type: ignore[attr-defined]
            last, bound = self._last, self.plan.bound
            if "owner" in self.killed:  # who was away may have to listen or to clean up anew
                last = self._owner_died
                away = self.scene.absent_since(last)
                bound += sum(away) + len(away) * (LEASE_SECONDS + SETTLE_SECONDS)
            took = time.monotonic() - last
            if not left:
                break
            assert took < bound, f"left after {took:.1f} s: {left}"
            threading.Event().wait(0.25)
        with self._tally.lock:
            self._tally.slowest_seconds = max(self._tally.slowest_seconds, took)

    # -- processes -------------------------------------------------------------------------

    @contextmanager
    def _client(self, role: str) -> Iterator["subprocess.Popen[str]"]:
        process = self._start(role)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _start(self, role: str) -> "subprocess.Popen[str]":
        scene, plan = self.scene, self.plan
        given = {
            "role": role, "workers": [w.url for w in scene.workers], "store": scene.url,
            "options": settings(scene.server, scene.door), "settle": SETTLE_SECONDS,
            "uid": plan.uid, "seed": plan.seed + plan.number, "most_bytes": plan.most_bytes,
            "lease_seconds": LEASE_SECONDS, "grace_seconds": GRACE_SECONDS,
            "persistence": plan.persistence, "cluster_name": "chaos",
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, str(FOLDER / "chaos_client.py"), json.dumps(given)],
            stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE if role == "owner" else subprocess.DEVNULL,
            stderr=subprocess.PIPE if role == "owner" else subprocess.DEVNULL,
        )  # fmt: skip
        self._processes[role] = process
        return process

    def _fire(self, victims: list[str], proxy: ChaosProxy | None) -> None:
        """Kill at the point of the plan."""
        before = self._struck
        self._kill(victims, proxy)
        if self._struck > before:
            with self._tally.lock:
                self._tally.fired.add(self.plan.point)

    def _kill(self, victims: list[str], proxy: ChaosProxy | None) -> None:
        """Kill processes; a worker is the one behind a proxy, if there is one."""
        sender = self.scene.worker_behind(proxy) if proxy else None
        first = sender or self._rng.choice(self.scene.workers)
        others = [w for w in self.scene.workers if w is not first]
        for victim in victims:
            if victim in {"worker", "other"}:
                self._strike(first if victim == "worker" else self._rng.choice(others))
            elif victim in self._processes and self._processes[victim].poll() is None:
                self._processes[victim].kill()
                self._note(victim)

    def _strike(self, worker: ChaosWorker) -> None:
        lived, killed = worker.strike(), time.monotonic()
        if lived:
            self._note("worker")
        revival = self.scene.revivers.submit(self._revive, worker, killed if lived else None)
        self._revivals.append(revival)

    def _revive(self, worker: ChaosWorker, killed: float | None) -> None:
        threading.Event().wait(self.plan.away)
        worker.revive()
        self._last = max(self._last, time.monotonic())
        if killed is not None:
            self.scene.absences.append((killed, time.monotonic()))

    def _note(self, victim: str) -> None:
        self.killed.add(victim)
        self._struck += 1
        self._last = max(self._last, time.monotonic())
        if victim == "owner":
            self._owner_died = time.monotonic()
        with self._tally.lock:
            self._tally.kills[victim] += 1
