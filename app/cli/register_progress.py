"""How long work tells how far it is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_QUIET_S = 10.0  # between two lines about the same step where there is no terminal
_LARGE = 64 << 20  # bytes: smaller work is over before anybody reads of it


class ShownProgress:
    """Fulfils ProgressReport of `app.conversion.progress` on standard error, and says single lines there.

    On a terminal the step that runs has a bar with bytes and the time left; elsewhere it has a line, and another one
    now and then where it is long.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._text = ""
        self._told_at = 0.0

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """One line."""
        self._end()
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            typer.echo(text, err=True)

    def step(self, text: str) -> None:
        """A new step begins."""
        if text == self._text:
            return
        self._end()
        self._text, self._told_at = text, time.monotonic()
        text = text.removesuffix(" …")
        if self._progress is not None:
            self._task = self._progress.add_task(text, total=None)
        else:
            typer.echo(f"{text} …", err=True)

    def bytes(self, done: int, total: int) -> None:
        """So many bytes of the step are done."""
        if self._progress is not None:
            if self._task is not None:
                self._progress.update(self._task, completed=done, total=total)
        elif total >= _LARGE and time.monotonic() - self._told_at >= _QUIET_S:
            self._told_at = time.monotonic()
            typer.echo(f"{self._text}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", err=True)

    def _end(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.remove_task(self._task)
        self._task, self._text = None, ""
