"""How a command shows what its work is at: on standard error, so that standard output is the result's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

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


class AmountBar:
    """One bar with what is done in words beside it, the time it took and the time it still takes; each step begins it
    anew. Where standard error is no terminal (not `is_shown`), a line for each step. Used as a context manager.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
        from rich.text import Text

        class Left(ProgressColumn):
            """By all the time that it took so far: rich's own stands still while nothing comes."""

            def render(self, task: Task) -> Text:
                return Text(time_left(task.elapsed or 0.0, task.completed, task.total))

        console = Console(stderr=True)
        self.is_shown = console.is_terminal
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeElapsedColumn(),
            Left(),
        )
        self._bars = Progress(*columns, console=console, transient=True, disable=not self.is_shown)
        self._task: Any = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def step(self, text: str) -> None:
        """Something new begins."""
        if not self.is_shown:
            typer.echo(f"{text} …", err=True)
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(text, total=None, amount="")

    def line(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self.is_shown:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            typer.echo(text, err=True)

    def update(self, done: int, total: int, amount: str) -> None:
        """So much of it is done; `amount` in words."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, amount=amount)


def time_left(elapsed_s: float, done: float, total: float | None) -> str:
    """How long the rest takes if it goes on as it went so far, as `h:mm:ss`; dashes where nothing is done yet. Pure."""
    if not done or total is None:
        return "-:--:--"
    seconds = round(elapsed_s / done * max(0.0, total - done))
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
