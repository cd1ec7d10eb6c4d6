"""How a job's progress is shown: bars on a terminal, lines in a log, JSON for machines."""

import json
import time
from dataclasses import asdict
from typing import Final, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crossdock.stages.progress import JobProgress, StageProgress

_LINE_SECONDS: Final = 5.0
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_KIB: Final = 1024


class Display(Protocol):
    """Shows a job while it runs. Called from one thread."""

    def show(self, progress: JobProgress) -> None:
        """Show how far the job is."""

    def note(self, message: str) -> None:
        """Say something that stays."""

    def close(self) -> None:
        """Leave the screen as the last `show` left it."""


class TerminalDisplay:
    """A bar per stage, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._live.start()

    def show(self, progress: JobProgress) -> None:
        """Draw all stages anew."""
        self._live.update(_bars(progress))

    def note(self, message: str) -> None:
        """Print above the bars."""
        self._live.console.print(message, highlight=False, markup=False)

    def close(self) -> None:
        self._live.stop()


class LineDisplay:
    """A line when a stage begins or ends, and every few seconds between."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last: dict[str, tuple[str, int]] = {}
        self._said = float("-inf")

    def show(self, progress: JobProgress) -> None:
        """Print what is new."""
        due = time.monotonic() - self._said > _LINE_SECONDS
        for stage in progress.stages:
            before = self._last.get(stage.name, ("waiting", 0))
            now = (stage.phase, stage.done)
            if now != before and (due or stage.phase != before[0]):
                self._last[stage.name] = now
                self._said = time.monotonic()
                self.note(f"{stage.name}: {_words(stage)}")

    def note(self, message: str) -> None:
        print(message, file=self._out, flush=True)

    def close(self) -> None:
        """Nothing is held."""


class JsonDisplay:
    """One JSON object a line: {"event": "progress" | "note", …}."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last: object = None

    def show(self, progress: JobProgress) -> None:
        """Print the progress, unless nothing but time has passed."""
        stages = [asdict(s) | {"seconds": round(s.seconds, 3)} for s in progress.stages]
        state = [{k: v for k, v in s.items() if k != "seconds"} for s in stages]
        if state != self._last:
            self._last = state
            self._print({"event": "progress", "job": progress.name, "stages": stages})

    def note(self, message: str) -> None:
        self._print({"event": "note", "message": message})

    def result(self, value: dict[str, object]) -> None:
        """Print how the job ended."""
        self._print({"event": "result", **value})

    def close(self) -> None:
        """Nothing is held."""

    def _print(self, value: dict[str, object]) -> None:
        print(json.dumps(value), file=self._out, flush=True)


def final_table(progress: JobProgress) -> Table:
    """Return the table that sums a job up: one row a stage."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for column in ("tasks", "attempts", "in", "out", "partitions", "largest", "median", "seconds"):
        table.add_column(column, justify="right", no_wrap=True, overflow="ignore")
    for s in progress.stages:
        table.add_row(
            s.name,
            f"{s.done}/{s.tasks}" if s.done < s.tasks else str(s.tasks),
            str(s.attempts),
            size(s.bytes_in),
            size(s.bytes_out),
            str(s.partitions or "-"),
            size(s.largest_bytes) if s.partitions else "-",
            size(s.median_bytes) if s.partitions else "-",
            f"{s.seconds:.1f}",
        )
    return table


def size(count: int) -> str:
    """Return bytes in a unit that fits, such as "3.4 MiB"."""
    value = float(count)
    for unit in _UNITS:
        if value < _KIB or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KIB
    raise AssertionError("the last unit takes all")


def _bars(progress: JobProgress) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for s in progress.stages:
        bar = ProgressBar(total=max(1, s.tasks), completed=s.done, width=24)
        grid.add_row(Text(s.name, style="bold" if s.running else ""), bar, Text(_words(s)))
    title = Text(f"{progress.name}  {progress.seconds:.0f} s", style="dim")
    return Group(title, grid)


def _words(stage: StageProgress) -> str:
    if not stage.tasks:
        return stage.phase
    rate = size(int(stage.bytes_out / stage.seconds)) + "/s" if stage.seconds else ""
    parts = [f"{stage.done}/{stage.tasks} tasks"]
    if stage.running:
        parts.append(f"{stage.running} running")
    if stage.bytes_out:
        parts.append(f"{size(stage.bytes_out)} out, {rate}")
    if stage.skew is not None:
        parts.append(f"skew {stage.skew:.1f}")
    if stage.attempts > stage.tasks:
        parts.append(f"{stage.attempts} attempts")
    return ", ".join(parts)
