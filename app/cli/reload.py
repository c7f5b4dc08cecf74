"""`modelport reload`: the running gateway reads its configuration again."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Final

import typer

from app.cli.admin_client import call
from app.cli.options import REFUSED, JsonOption, StateOption, fail, print_json, warn

POLL_S: Final = 0.5

WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait until every backend is as the file has it; exit code 1 when one fails.")
]


def reload(state: StateOption = None, wait: WaitOption = False, as_json: JsonOption = False) -> None:
    """Make the running gateway read its configuration again. A bad file changes nothing and ends with exit code 2."""
    response = call("POST", "/admin/reload", state)
    pending: list[str] = response["pending"]
    failed: list[str] = []
    while wait and pending and not failed:
        backends = call("GET", "/admin/status", state)["health"]["backends"]
        pending, failed = progress_of(backends, response["pending"])
        time.sleep(POLL_S if pending and not failed else 0.0)
    if as_json:
        print_json({**response, "pending": pending, "failed": failed} if wait else response)
    else:
        _report(response, pending, is_failed=bool(failed))
    if failed:
        fail(failed, REFUSED)


def _report(response: Mapping[str, Any], pending: Collection[str], *, is_failed: bool) -> None:
    table = response["table_version"]
    if not pending and not is_failed:
        typer.echo(f"The new configuration is in force (table {table}).")
    else:
        typer.echo(f"The new configuration is read (table {table}).")
    if pending:
        names = ", ".join(pending)
        typer.echo(f"Not in force yet: {names}. `modelport status` says why, `modelport reload --wait` waits for it.")
    if response["needs_restart"]:
        warn(f"Only a restart changes these: {', '.join(response['needs_restart'])}")


def progress_of(backends: Iterable[Mapping[str, Any]], asked: Collection[str]) -> tuple[list[str], list[str]]:
    """The names among `asked` that are not yet as configured, and a line `NAME: REASON` for each that failed. Pure."""
    pending: list[str] = []
    failed: list[str] = []
    for backend in backends:
        name, replacement = backend["name"], backend["replacement"]
        if name not in asked:
            continue
        if replacement is not None and replacement["state"] == "failed":
            failed.append(f"{name}: {replacement['reason']}")
        elif backend["state"] == "failed" and backend["is_managed"]:
            failed.append(f"{name}: {backend['reason']}")
        elif replacement is not None or backend["state"] in ("starting", "stopping"):
            pending.append(name)
    return pending, failed
