"""`modelport status`: the running gateway at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from app.cli.admin_client import call
from app.cli.options import JsonOption, StateOption, print_json, warn
from app.cli.tables import show


def status(state: StateOption = None, as_json: JsonOption = False) -> None:
    """Show how the running gateway is: its address, its processes and its backends."""
    answer = call("GET", "/admin/status", state)
    if as_json:
        print_json(answer)
        return
    health, relays = answer["health"], answer["relays"]
    pids = ", ".join(str(pid) for pid in relays["pids"])
    typer.echo(
        f"modelport {health['version']}: {health['status']}, at {answer['address']}, up {duration(health['uptime_s'])}"
    )
    typer.echo(f"supervisor {answer['pid']}, relays {pids or 'none'} ({relays['restarts']} restarts)")
    typer.echo(f"configuration {answer['config'] or 'none: the defaults'}, state folder {answer['state_folder']}")
    typer.echo(f"requests in flight {answer['leases']}, {len(health['models'])} models\n")
    for each in health["quarantined"]:
        warn(each["reason"])
    show(
        ("backend", "kind", "state", "since", "pid", "starts", "restarts", "in flight", "note"),
        [
            (
                backend["name"],
                backend["kind"],
                backend["state"],
                duration(backend["since_s"]),
                str(backend["pid"] or ""),
                str(backend["generation"]),
                str(backend["restarts"]),
                str(backend["in_flight"]),
                note(backend["reason"], backend["last_failure"], backend["replacement"]),
            )
            for backend in health["backends"]
        ],
    )


def note(
    reason: str | None, last_failure: Mapping[str, Any] | None, replacement: Mapping[str, Any] | None = None
) -> str:
    """Why it does not serve; else why it is not as it is configured; else why it last ended by itself."""
    if reason or replacement is not None:
        return reason or str(replacement["reason"] if replacement is not None else "")
    if last_failure is None:
        return ""
    return f"ended {duration(last_failure['ago_s'])} ago (start {last_failure['life']}): {last_failure['reason']}"


def duration(seconds: float) -> str:
    """`75` as `1m 15s`: the two largest units."""
    rest = int(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
