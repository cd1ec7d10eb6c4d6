"""Time, messages and processes of the simulated world. One seed, one history."""

import heapq
import random
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

Process = Generator[Any, Any, None]
"""Yields seconds of its own clock to sleep for, or a request to the store; is sent the answer."""


class Violation(Exception):
    """Something that must never be has been."""


class Actor:
    """A process with a clock of its own, which can die, come back and be paused."""

    def __init__(self, loop: "Loop", name: str, rate: float, offset: float) -> None:
        self.loop = loop
        self.name = name
        self.rate = rate
        self.offset = offset
        self.alive = True
        self.life = 0
        self.paused_until = 0.0

    def local(self) -> float:
        return self.offset + self.rate * self.loop.now

    def true_time(self, local: float) -> float:
        return (local - self.offset) / self.rate

    def die(self) -> None:
        self.alive = False
        self.life += 1


class Call(NamedTuple):
    """A question on its way."""

    source: Actor
    life: int
    target: Actor
    handler: Callable[..., Any]
    args: tuple[Any, ...]
    reply: Callable[[Any], None] | None


class Loop:
    """Events by time; messages between actors, as good as the network is just now."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.events = 0
        self.heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.islands: list[frozenset[str]] = []
        self.loss = 0.0
        self.twice = 0.0
        self.slow = 0.0
        self.tracing = False
        self.trace: list[str] = []
        self.store: Callable[[Actor, int, Process, tuple[Any, ...]], None] = NotImplemented

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now:8.3f}  {text}")

    def at(self, when: float, do: Callable[..., None], *args: Any) -> None:
        self.events += 1
        heapq.heappush(self.heap, (when, self.events, do, args))

    def run(self, until: Callable[[], bool]) -> None:
        heap = self.heap
        while heap and not until():
            self.now, _, do, args = heapq.heappop(heap)
            do(*args)

    def send(self, source: str, target: str, do: Callable[..., None], *args: Any) -> None:
        """Deliver something once, twice or never."""
        for island in self.islands if source != "tasks" != target else ():  # tasks are everywhere
            if (source in island) != (target in island):
                return
        chance = self.random.random
        if self.loss and chance() < self.loss:
            return
        self.at(self.now + self._delay(), do, *args)
        if self.twice and chance() < self.twice:
            self.at(self.now + self._delay(), do, *args)

    def _delay(self) -> float:
        chance = self.random.random
        if self.slow and chance() < 0.3:
            return 0.01 + self.slow * chance()
        return 0.01 + 0.04 * chance()

    def call(
        self,
        source: Actor,
        target: Actor,
        handler: Callable[..., Any],
        args: tuple[Any, ...],
        reply: Callable[[Any], None] | None = None,
    ) -> None:
        """Have `target` handle something; `reply` hears the answer, if source and it live on."""
        call = Call(source, source.life, target, handler, args, reply)
        self.send(source.name, target.name, self._arrive, call)

    def _arrive(self, call: Call) -> None:
        source, life, target, handler, args, reply = call
        if target.paused_until > self.now:
            self.at(target.paused_until, self._arrive, call)
        elif target.alive:
            answer = handler(target, *args)
            if reply is not None:
                self.send(target.name, source.name, self.answered, source, life, reply, answer)

    def answered(self, source: Actor, life: int, reply: Callable[[Any], None], answer: Any) -> None:
        if source.life != life:
            return
        if source.paused_until > self.now:
            self.at(source.paused_until, self.answered, source, life, reply, answer)
        else:
            reply(answer)

    def spawn(self, actor: Actor, process: Process) -> None:
        self.resume(actor, actor.life, process, None)

    def resume(self, actor: Actor, life: int, process: Process, answer: Any) -> None:
        if actor.life != life:
            process.close()
            return
        if actor.paused_until > self.now:
            self.at(actor.paused_until, self.resume, actor, life, process, answer)
            return
        try:
            wanted = process.send(answer)
        except StopIteration:
            return
        if type(wanted) is tuple:
            self.store(actor, life, process, wanted)
        else:
            self.at(self.now + wanted / actor.rate, self.resume, actor, life, process, None)

    def every(self, actor: Actor, seconds: float, do: Callable[[], None]) -> None:
        """Call `do` again and again while this life of an actor lasts."""
        self.spawn(actor, _forever(seconds, do))


def _forever(seconds: float, do: Callable[[], None]) -> Process:
    while True:
        do()
        yield seconds
