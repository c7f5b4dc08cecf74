"""Tables for people: coloured on a terminal; in a pipe one plain line per row, with nothing cut off."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from app.cli.terminal_text import terminal_line

_COLOURS = {
    "ready": "green",
    "starting": "yellow",
    "sleeping": "cyan",
    "stopping": "yellow",
    "failed": "red",
}


def show(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print the rows under their column names. Columns without any content are left out, except for the first."""
    all_rows = [tuple(map(terminal_line, row)) for row in rows]
    used = [index for index in range(len(columns)) if index == 0 or any(row[index] for row in all_rows)]
    cells = [[row[index] for index in used] for row in (columns, *all_rows)]
    if sys.stdout.isatty():
        _draw(cells)
    else:
        print(plain(cells))


def plain(cells: Sequence[Sequence[str]]) -> str:
    """The rows of cells as lines, each column as wide as its widest cell. Pure."""
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def _draw(cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in cells[0]:
        table.add_column(name, overflow="fold")
    for row in cells[1:]:
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    Console(highlight=False).print(table)


def number_of(count: int, what: str) -> str:
    """`1 record`, `2,000 records`: so many of what has a regular plural. Pure."""
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"
