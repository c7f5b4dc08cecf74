"""`modelport clean`: remove what commands have installed for themselves and can install again."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.options import StateOption
from app.cli.toolbox import folder, tool_errors_reported


def clean(
    state: StateOption = None,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove the tool environments (PyTorch, the converter, …); the next command that needs one makes it again."""
    from backends.toolenv import environment
    from backends.toolenv.tools import in_words

    place = folder(state)
    with tool_errors_reported():
        done = environment.clean(place, is_dry=is_dry)
    for name, pid in done.in_use.items():
        typer.echo(f"{name}: process {pid} uses it; left as it is", err=True)
    if not done.names:
        typer.echo(f"Nothing to remove in {place}.")
        return
    for name in done.names:
        typer.echo(name)
    verb = "would be freed" if is_dry else "freed"
    typer.echo(f"{in_words(done.freed_bytes / 1e6)} {verb} in {place}.")
