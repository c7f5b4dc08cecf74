"""`modelport logs`: what an engine wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.admin_client import call
from app.cli.options import JsonOption, StateOption, print_json, warn
from app.cli.status import duration


def logs(
    backend: Annotated[str, typer.Argument(help="A backend's name, see `modelport status`.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many lines at most.")] = 200,
    life: Annotated[
        int | None,
        typer.Option("--life", help="Of which start, as `modelport status` counts them; -1: the one before this."),
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the last lines that a backend's process wrote, now or in one of its last lives."""
    asked = {"lines": str(lines)} | ({} if life is None else {"life": str(life)})
    answer = call("GET", f"/admin/backends/{quote(backend, safe='')}/logs", state, asked)
    if as_json:
        print_json(answer)
        return
    for line in answer["lines"]:
        typer.echo(line)
    for each in answer["lives"]:
        if each["ended_ago_s"] is not None:
            told = each["reason"] or "it was stopped"
            warn(f"start {each['life']} ended {duration(each['ended_ago_s'])} ago: {told} (--life {each['life']})")
    if not answer["lines"] and life is not None:
        warn(f"{backend}: start {answer['life']} wrote nothing.")
    elif not answer["lines"]:
        warn(_silence(backend, call("GET", "/admin/status", state)["health"]["backends"]))


def _silence(name: str, backends: Sequence[Mapping[str, Any]]) -> str:
    """Why there are no lines."""
    found = next((backend for backend in backends if backend["name"] == name), None)
    if found is not None and found["is_managed"]:
        return f"{name}: it has written nothing yet."
    return f"{name}: somebody else runs it, and has its log."
