"""`modelport logs`: what an engine wrote."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from app.tools.control import call
from app.tools.terminal import JsonOption, StateOption, print_json


def logs(
    backend: Annotated[str, typer.Argument(help="A backend's name, see `modelport status`.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many lines at most.")] = 200,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the last lines that a backend's process wrote."""
    answer = call("GET", f"/admin/backends/{quote(backend, safe='')}/logs", state, {"lines": str(lines)})
    if as_json:
        print_json(answer)
        return
    for line in answer["lines"]:
        typer.echo(line)
