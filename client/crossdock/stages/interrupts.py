"""Signals that end a run: noted from before anything is made until all is cleared away."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Final, Self

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Use as a context manager, in the main thread. Further signals change nothing."""

    def __init__(self) -> None:
        self.name: str | None = None
        """Of the signal that came first."""
        self._tell: list[Callable[[str], object]] = []
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def on(self, tell: Callable[[str], object]) -> None:
        """Call `tell` with the signal's name, at once if it has come already."""
        self._tell.append(tell)
        if self.name is not None:
            tell(self.name)

    def __enter__(self) -> Self:
        self._before = {n: signal.signal(n, self._handle) for n in _NUMBERS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.name is None:
            self.name = signal.Signals(number).name
            for tell in self._tell:
                tell(self.name)
