"""How `modelport top` looks: tables as wide and as high as the terminal lets them be. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from app.cli.status import duration
from app.cli.terminal_text import terminal_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.cli.top_figures import Overview

_COLOURS: Final = {
    "ready": "green",
    "starting": "yellow",
    "sleeping": "cyan",
    "stopping": "yellow",
    "failed": "red",
    "ok": "green",
    "degraded": "red",
    "draining": "yellow",
}
_FIXED_LINES: Final = 5  # title, blank lines, the last line
_AROUND: Final = 3  # of a table: names of columns, a line for what was left out, a blank line
_FEWEST: Final = 1  # rows of a table, however low the terminal is


class Column(NamedTuple):
    """A column: its name, the width of a terminal from which on it is shown, and whether it holds figures."""

    name: str
    shown_from: int = 0
    is_figure: bool = True


class Grid(NamedTuple):
    """A table of texts."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    def at_width(self, width: int) -> Grid:
        """Without the columns that a terminal of this width has no room for, and without those that are empty."""
        kept = [
            index
            for index, column in enumerate(self.columns)
            if index == 0 or (column.shown_from <= width and any(row[index] for row in self.rows))
        ]
        rows = tuple(tuple(row[index] for index in kept) for row in self.rows)
        return Grid(tuple(self.columns[index] for index in kept), rows)


def grids(view: Overview) -> list[Grid]:
    """Models, backends, keys and GPUs; those without a row are left out."""
    return [grid for grid in (_models(view), _backends(view), _keys(view), _gpus(view)) if grid.rows]


def _models(view: Overview) -> Grid:
    columns = (
        Column("model", is_figure=False),
        Column("state", is_figure=False),
        Column("in flight", 30),
        Column("tokens/s", 40),
        Column("first token", 60),
        Column("requests/s", 75),
        Column("prompt tokens/s", 110),
        Column("errors", 90),
    )
    rows = (
        (
            terminal_line(each.name),
            each.state,
            str(each.in_flight),
            _figure(each.output_tokens_s),
            _seconds(each.first_token_s),
            _figure(each.requests_s),
            _figure(each.input_tokens_s),
            str(each.errors or ""),
        )
        for each in view.models
    )
    return Grid(columns, tuple(rows))


def _backends(view: Overview) -> Grid:
    columns = (
        Column("backend", is_figure=False),
        Column("state", is_figure=False),
        Column("in flight", 30),
        Column("waiting", 40),
        Column("since", 60),
        Column("restarts", 50),
        Column("kind", 90, is_figure=False),
        Column("devices", 110, is_figure=False),
        Column("note", 75, is_figure=False),
    )
    rows = (
        (
            terminal_line(each.name),
            each.state,
            str(each.in_flight),
            str(each.waiting),
            duration(each.since_s),
            str(each.restarts),
            each.kind,
            ", ".join(each.devices),
            terminal_line(each.note),
        )
        for each in view.backends
    )
    return Grid(columns, tuple(rows))


def _keys(view: Overview) -> Grid:
    columns = (
        Column("key", is_figure=False),
        Column("requests/s", 30),
        Column("tokens/s", 40),
        Column("fullest limit", 50),
        Column("refused", 60),
        Column("money", 75),
    )
    rows = (
        (
            terminal_line(each.name),
            _figure(each.requests_s),
            _figure(each.tokens_s),
            "" if each.fullest is None else f"{each.fullest[0]} {each.fullest[1]:.0%}",
            str(each.refused or ""),
            "" if not each.money else f"{each.money:.2f}",
        )
        for each in view.keys
    )
    return Grid(columns, tuple(rows))


def _gpus(view: Overview) -> Grid:
    columns = (Column("GPU", is_figure=False), Column("memory"), Column("busy"))
    rows = (
        (each.device, f"{each.used_gb:.1f} of {each.total_gb:.1f} GB", "" if each.busy is None else f"{each.busy:.0%}")
        for each in view.gpus
    )
    return Grid(columns, tuple(rows))


def title(view: Overview, width: int) -> str:
    """The first line: how the gateway is, where, and what goes through it."""
    said = [
        f"modelport {view.version}: {view.status}",
        f"{view.in_flight} in flight",
        f"{view.waiting} waiting" if view.waiting else "",
        "" if view.output_tokens_s is None else f"{_figure(view.output_tokens_s)} tokens/s",
        "" if view.requests_s is None else f"{_figure(view.requests_s)} requests/s",
        *_store(view),
        f"up {duration(view.uptime_s)}",
        view.address,
    ]
    line = ""
    for part in filter(None, said):
        longer = f"{line}, {part}" if line else part
        if line and len(longer) > width:
            break
        line = longer
    return line


def _store(view: Overview) -> list[str]:
    """What there is to say of the store: nothing while all is well and nobody shares it."""
    store = view.store
    if store is None:
        return []
    return [
        "" if store.is_up else "the store is away",
        f"{store.gateways} gateways" if store.gateways is not None and store.gateways > 1 else "",
        f"{store.pending} usage records not in the store" if store.pending and not store.is_up else "",
    ]


def cut(tables: Sequence[Grid], lines: int) -> list[tuple[Grid, int]]:
    """Each table with so many rows that all fit into these lines, and how many it lost. The longest loses first."""
    kept = [len(grid.rows) for grid in tables]
    while sum(kept) + _AROUND * len(tables) > lines and max(kept, default=0) > _FEWEST:
        longest = kept.index(max(kept))
        kept[longest] -= 1
    return [
        (Grid(grid.columns, grid.rows[:count]), len(grid.rows) - count)
        for grid, count in zip(tables, kept, strict=True)
    ]


def screen(view: Overview | None, trouble: str | None, width: int, height: int) -> RenderableType:
    """The whole screen. `trouble`: why there is nothing new; then what is shown is what was seen last."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    if view is not None:
        style = "dim" if trouble is not None else f"bold {_COLOURS.get(view.status, '')}".strip()
        parts.append(Text(title(view, width), style=style, no_wrap=True, overflow="ellipsis"))
    if trouble is not None:
        parts.append(Text(trouble, style="bold red"))
    if view is not None:
        tables = [grid.at_width(width) for grid in grids(view)]
        for grid, left_out in cut(tables, height - _FIXED_LINES):
            parts += ["", _table(grid, is_old=trouble is not None)]
            if left_out:
                parts.append(Text(f"… {left_out} more", style="dim"))
    parts.append(Text("q ends it", style="dim"))
    return Group(*parts)


def _table(grid: Grid, *, is_old: bool) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", style="dim" if is_old else "")
    for column in grid.columns:
        table.add_column(
            column.name, justify="right" if column.is_figure else "left", no_wrap=True, overflow="ellipsis"
        )
    for row in grid.rows:
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    return table


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
