"""`modelport plan`: who runs where, what each takes, and what to change where it does not fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from app.cli.admin_client import call, socket_of
from app.cli.options import REFUSED, ConfigOption, JsonOption, StateOption, config_errors_reported, print_json, warn
from app.cli.tables import show


def plan(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Place everything in the configuration on this machine; exit code 1 when something can never start.

    A running gateway is asked, unless --config names a file. How much memory engines took when they last ran is known
    from the state folder.
    """
    is_asked = config is None and socket_of(state).exists()
    response = call("GET", "/admin/plan", state) if is_asked else _of_file(config, state)
    if as_json:
        print_json(response)
    else:
        _print(response)
    if not all(row["is_possible"] for row in response["seats"]):
        raise typer.Exit(REFUSED)


def _of_file(config: Path | None, state: Path | None) -> Any:
    from app import log
    from app.config.load import load_all
    from app.config.settings import resolve
    from app.supervisor.capacity import devices, report
    from app.supervisor.capacity.measurements import MeasurementStore
    from app.supervisor.state_folder import MEASUREMENTS

    log.set_up("console", "warning")
    with config_errors_reported():
        options = resolve(os.environ, config=config, state=state, insecure_no_key=True)
        loaded = load_all(options)
    machine = devices.machine(loaded.server.memory_gb, os.environ)
    measurements = MeasurementStore(options.state / MEASUREMENTS)
    return report.plan(loaded, machine, measurements).model_dump(mode="json")


def _print(response: Any) -> None:
    gpus = ", ".join(
        f"{gpu['index']} ({gpu['uuid']}, {gpu['memory_gb']:.0f} GB{', in quarantine' if gpu['quarantine'] else ''})"
        for gpu in response["gpus"]
    )
    typer.echo(f"memory for engines {response['memory_gb']:.1f} GB, GPUs {gpus or 'none'}")
    relays = response["relays"]
    typer.echo(
        f"relays {relays['count']}{' (auto)' if relays['is_auto'] else ''}; of {relays['cores']} cores engines keep "
        f"{relays['engine_cores']} busy\n"
    )
    show(
        ("backend", "fits", "devices", "share", "memory", "weights", "estimated", "measured", "on GPUs", "KV cache"),
        [_row(row) for row in response["seats"]],
    )
    for row in response["seats"]:
        for note in row["notes"]:
            warn(f"{row['backend']}: {note}")
    for row in response["seats"]:
        for lack in row["lacks"]:
            warn(f"{row['backend']}: {lack}")


def _row(row: Any) -> tuple[str, ...]:
    fits = "yes" if row["fits"] and row["is_possible"] else "in turn" if row["is_possible"] else "never"
    cache = f"{row['kv_gb']:.2f} GB" if row["kv_gb"] is not None else ""
    if row["kv_tokens"] is not None:
        cache = f"{cache} {row['kv_tokens']} tokens".strip()
    return (
        row["backend"],
        fits,
        ", ".join(row["devices"]),
        f"{row['share']:.0%}" if row["devices"] else "",
        " ".join(filter(None, (_gb(row["memory_gb"]), row["memory_source"]))),
        _gb(row["loaded_weights_gb"] if row["loaded_weights_gb"] is not None else row["weights_gb"]),
        _gb(row["estimated_gb"]),
        _gb(row["measured_gb"]),
        _gb(row["device_gb"]),
        cache,
    )


def _gb(size: float | None) -> str:
    return "" if size is None else f"{size:.2f} GB"
