"""How a command shows what its work is at: on standard error, so that standard output is the result's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from app.conversion.progress import ProgressReport


@contextlib.contextmanager
def progress_shown() -> Iterator[ProgressReport]:
    """A bar on standard error for what goes on inside: the step, bytes and how long it still takes. Where standard
    error is no terminal, a line for each step.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bars(progress)


class _Lines:
    """Fulfils ProgressReport with a line for each step."""

    def step(self, text: str) -> None:
        typer.echo(text, err=True)

    def bytes(self, done: int, total: int) -> None:
        """Only a terminal shows this."""


class _Bars:
    """Fulfils ProgressReport with one bar, which each step begins anew."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def step(self, text: str) -> None:
        self._progress.reset(self._task, description=text, total=None)

    def bytes(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)
