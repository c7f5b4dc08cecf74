"""`modelport logs`: what an engine wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli import completion
from app.cli.admin_client import call
from app.cli.options import JsonOption, StateOption, print_json, warn
from app.cli.status import duration


def logs(
    backend: Annotated[
        str, typer.Argument(help="A backend's name, see `modelport status`.", autocompletion=completion.backends)
    ],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many lines at most.")] = 200,
    life: Annotated[
        int | None,
        typer.Option("--life", help="Of which start, as `modelport status` counts them; -1: the one before this."),
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the last lines that a backend's process wrote, since its last start or in an earlier one."""
    asked = {"lines": str(lines)} | ({} if life is None else {"life": str(life)})
    response = call("GET", f"/admin/backends/{quote(backend, safe='')}/logs", state, asked)
    if as_json:
        print_json(response)
        return
    for line in response["lines"]:
        typer.echo(line)
    for each in response["lives"]:
        if each["ended_ago_s"] is not None:
            reason = each["reason"] or "it was stopped"
            warn(f"start {each['life']} ended {duration(each['ended_ago_s'])} ago: {reason} (--life {each['life']})")
    if not response["lines"] and life is not None:
        warn(f"{backend}: start {response['life']} wrote nothing.")
    elif not response["lines"]:
        warn(_why_no_lines(backend, call("GET", "/admin/status", state)["health"]["backends"]))


def _why_no_lines(name: str, backends: Sequence[Mapping[str, Any]]) -> str:
    backend = next((each for each in backends if each["name"] == name), None)
    if backend is not None and backend["is_managed"]:
        return f"{name}: it has written nothing yet."
    return f"{name}: the gateway does not run it, so its log is elsewhere."
