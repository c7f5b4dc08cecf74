"""How `modelport compare` shows what it is at: on standard error, so that standard output is the result's."""

from __future__ import annotations

import time
from typing import Final

import typer

from app.cli.progress import AmountBar
from app.cli.terminal_text import terminal_text

_EVERY: Final = 0.1  # without a terminal, a line for each tenth


class ShownRun(AmountBar):
    """The number of answers, of failed ones, and how long it still takes; without a terminal, a line for each step and
    each tenth of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._began, self._told = time.monotonic(), 0.0
        self._waited_for = ""

    def step(self, text: str) -> None:
        """Something new begins."""
        self._began, self._told = time.monotonic(), 0.0
        super().step(text)

    def count(self, done: int, total: int, failed: int) -> None:
        """So many of them are done, of which so many failed."""
        self._waited_for = ""
        amount = f"{done:,} of {total:,}" + (f", {failed:,} failed" if failed else "")
        self.update(done, total, amount)
        if not self.is_shown and total and done / total >= self._told + _EVERY:
            self._told = done / total
            left = (time.monotonic() - self._began) / done * (total - done)
            typer.echo(f"  {amount}, {duration(left)} left", err=True)

    def waiting(self, why: str) -> None:
        """Nothing comes, for this reason: said once until the next answer."""
        if why != self._waited_for:
            self._waited_for = why
            self.line(f"  waiting: {terminal_text(why)}")


def duration(seconds: float) -> str:
    """A time in words: `40 s`, `12 min`, `3 h 20 min`. Pure."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
