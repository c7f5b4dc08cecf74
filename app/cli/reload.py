"""`modelport reload`: the running gateway reads its configuration again."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Final

import typer

from app.cli.admin_client import call
from app.cli.options import REFUSED, JsonOption, StateOption, fail, print_json, warn

LOOK_S: Final = 0.5

WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait until every backend is as the file has it; exit code 1 when one fails.")
]


def reload(state: StateOption = None, wait: WaitOption = False, as_json: JsonOption = False) -> None:
    """Make the running gateway read its configuration again. A bad file changes nothing; exit code 2 then."""
    answer = call("POST", "/admin/reload", state)
    pending: list[str] = answer["pending"]
    failed: list[str] = []
    while wait and pending and not failed:
        backends = call("GET", "/admin/status", state)["health"]["backends"]
        pending, failed = judged(backends, answer["pending"])
        time.sleep(LOOK_S if pending and not failed else 0.0)
    if as_json:
        print_json({**answer, "pending": pending, "failed": failed} if wait else answer)
    else:
        _tell(answer, pending, is_failed=bool(failed))
    if failed:
        fail(failed, REFUSED)


def _tell(answer: Mapping[str, Any], pending: Collection[str], *, is_failed: bool) -> None:
    table = answer["table_version"]
    if not pending and not is_failed:
        typer.echo(f"The new configuration is in force (table {table}).")
    else:
        typer.echo(f"The new configuration is read (table {table}).")
    if pending:
        names = ", ".join(pending)
        typer.echo(f"Not in force yet: {names}. `modelport status` says why, `modelport reload --wait` waits for it.")
    if answer["needs_restart"]:
        warn(f"Only a restart changes these: {', '.join(answer['needs_restart'])}")


def judged(backends: Iterable[Mapping[str, Any]], asked: Collection[str]) -> tuple[list[str], list[str]]:
    """Of the backends that were asked for: which are still on their way, and what is wrong with others. Pure."""
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
