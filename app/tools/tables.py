"""Tables for people: coloured on a terminal, plain and whole in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_COLOURS = {
    "ready": "green",
    "ok": "green",
    "starting": "yellow",
    "sleeping": "cyan",
    "stopping": "yellow",
    "draining": "yellow",
    "degraded": "red",
    "failed": "red",
}


def show(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print the rows under their column names; columns that are empty throughout are left out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    listed = [tuple(row) for row in rows]
    used = [index for index in range(len(columns)) if index == 0 or any(row[index] for row in listed)]
    console = Console(highlight=False)
    if not console.is_terminal:
        # A pipe has no width: nothing may be cut.
        console.width = sum(max(len(row[index]) for row in [columns, *listed]) + 3 for index in used) + 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index in used:
        table.add_column(columns[index], overflow="fold")
    for row in listed:
        table.add_row(*(Text(row[index], style=_COLOURS.get(row[index], "")) for index in used))
    console.print(table)
