"""`modelport reload`: the running gateway reads its configuration again."""

from __future__ import annotations

import typer

from app.tools.control import call
from app.tools.terminal import JsonOption, StateOption, print_json, warn


def reload(state: StateOption = None, as_json: JsonOption = False) -> None:
    """Make the running gateway read its configuration again. A bad file changes nothing; exit code 2 then."""
    answer = call("POST", "/admin/reload", state)
    if as_json:
        print_json(answer)
        return
    typer.echo(f"The new configuration is in force (table {answer['table_version']}).")
    if answer["needs_restart"]:
        warn(f"Only a restart changes these: {', '.join(answer['needs_restart'])}")
