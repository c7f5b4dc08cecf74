"""How `modelport compare` shows what it is at: on standard error, so that standard output is the result's."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Final, Self

import typer

_EVERY: Final = 0.1  # without a terminal, a line for each tenth


class ShownRun:
    """A bar with the number of answers, of failed ones, and how long it still takes; without a terminal, a line for
    each step and each tenth of it. Used as a context manager.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._is_shown = console.is_terminal
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=console, transient=True, disable=not self._is_shown)
        self._task: Any = None
        self._began, self._told = time.monotonic(), 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def step(self, text: str) -> None:
        """Something new begins."""
        self._began, self._told = time.monotonic(), 0.0
        if not self._is_shown:
            typer.echo(f"{text} …", err=True)
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(text, total=None, amount="")

    def count(self, done: int, total: int, failed: int) -> None:
        """So many of them are done, of which so many failed."""
        amount = f"{done:,} of {total:,}" + (f", {failed:,} failed" if failed else "")
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, amount=amount)
        if not self._is_shown and total and done / total >= self._told + _EVERY:
            self._told = done / total
            left = (time.monotonic() - self._began) / done * (total - done)
            typer.echo(f"  {amount}, {duration(left)} left", err=True)


def duration(seconds: float) -> str:
    """A time in words: `40 s`, `12 min`, `3 h 20 min`. Pure."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
