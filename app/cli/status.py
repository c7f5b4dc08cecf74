"""`modelport status`: an overview of the running gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from app.cli.admin_client import call
from app.cli.options import JsonOption, StateOption, print_json, warn
from app.cli.tables import show


def status(state: StateOption = None, as_json: JsonOption = False) -> None:
    """Show the running gateway: its address, its processes and its backends with their states."""
    response = call("GET", "/admin/status", state)
    if as_json:
        print_json(response)
        return
    health, relays = response["health"], response["relays"]
    pids = ", ".join(str(pid) for pid in relays["pids"])
    uptime = duration(health["uptime_s"])
    typer.echo(f"modelport {health['version']}: {health['status']}, at {response['address']}, up {uptime}")
    typer.echo(f"supervisor {response['pid']}, relays {pids or 'none'} ({relays['restarts']} restarts)")
    typer.echo(f"configuration {response['config'] or 'none: the defaults'}, state folder {response['state_folder']}")
    typer.echo(f"requests in flight {response['leases']}, models {len(health['models'])}")
    if (store := health.get("store")) is not None:
        typer.echo(store_line(store))
    typer.echo()
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
                ejection_note(backend["ejected"])
                or note(backend["reason"], backend["last_failure"], backend["replacement"]),
            )
            for backend in health["backends"]
        ],
    )


def store_line(store: Mapping[str, Any]) -> str:
    """Where keys, limits and usage are kept, whether that responds, and how many gateways share it. Pure."""
    others = f", {store['gateways']} gateways" if (store["gateways"] or 1) > 1 else ""
    silent = f" ({store['silent']} silent)" if store["silent"] else ""
    away = "" if store["is_up"] else f", away for {duration(store['down_s'] or 0.0)}: {store['reason']}"
    return f"store {store['kind']}, {store['place']}{others}{silent}{away}"


def ejection_note(ejected: Sequence[Mapping[str, Any]]) -> str:
    """Why requests pass a backend over, and when it is tried again; "" where they do not."""
    return "; ".join(
        f"requests for {each['model']} pass it over for {duration(each['since_s'])}: {each['evidence']}; "
        f"it is tried again in {duration(each['tried_in_s'])}"
        for each in ejected
    )


def note(
    reason: str | None, last_failure: Mapping[str, Any] | None, replacement: Mapping[str, Any] | None = None
) -> str:
    """The note of a backend or model in a table, "" for none.

    The first of these: why it does not serve; why it is not yet as it is configured; why it last ended by itself.
    """
    if reason or replacement is not None:
        return reason or str(replacement["reason"] if replacement is not None else "")
    if last_failure is None:
        return ""
    return f"ended {duration(last_failure['ago_s'])} ago (start {last_failure['life']}): {last_failure['reason']}"


def duration(seconds: float) -> str:
    """Seconds as people read them, in the two largest units: 75 as `1m 15s`."""
    rest = int(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
