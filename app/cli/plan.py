"""`modelport plan`: who runs where, what each takes, and what to change where it does not fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from app.cli.admin_client import call
from app.cli.options import REFUSED, ConfigOption, JsonOption, StateOption, config_errors_reported, print_json, warn
from app.cli.tables import show


def plan(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Place everything in the configuration on this machine; exit code 1 when something can never start.

    A running gateway is asked, unless --config names a file. What engines took when they last ran, the state folder
    knows.
    """
    answer = (
        _of_file(config, state) if config is not None or not _is_running(state) else call("GET", "/admin/plan", state)
    )
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    if not all(seat["is_possible"] for seat in answer["seats"]):
        raise typer.Exit(REFUSED)


def _is_running(state: Path | None) -> bool:
    from app.cli.admin_client import socket_of

    return socket_of(state).exists()


def _of_file(config: Path | None, state: Path | None) -> Any:
    from app import log
    from app.config.load import load_all
    from app.config.settings import resolve
    from app.supervisor.capacity import devices
    from app.supervisor.capacity.measurements import MeasurementStore
    from app.supervisor.capacity.report import plan as plan_of
    from app.supervisor.state_folder import MEASURES

    log.set_up("console", "warning")
    with config_errors_reported():
        options = resolve(os.environ, config=config, state=state, insecure_no_key=True)
        found = load_all(options)
    machine = devices.machine(found.server.memory_gb, os.environ)
    return plan_of(found, machine, MeasurementStore(options.state / MEASURES)).model_dump(mode="json")


def _print(answer: Any) -> None:
    gpus = ", ".join(
        f"{gpu['index']} ({gpu['uuid']}, {gpu['memory_gb']:.0f} GB{', in quarantine' if gpu['quarantine'] else ''})"
        for gpu in answer["gpus"]
    )
    typer.echo(f"memory for engines {answer['memory_gb']:.1f} GB, GPUs {gpus or 'none'}\n")
    show(
        ("backend", "fits", "devices", "share", "memory", "weights", "estimated", "measured", "on GPUs", "KV cache"),
        [_row(seat) for seat in answer["seats"]],
    )
    for seat in answer["seats"]:
        for note in seat["notes"]:
            warn(f"{seat['backend']}: {note}")
    for seat in answer["seats"]:
        for lack in seat["lacks"]:
            warn(f"{seat['backend']}: {lack}")


def _row(seat: Any) -> tuple[str, ...]:
    fits = "yes" if seat["fits"] and seat["is_possible"] else "in turn" if seat["is_possible"] else "never"
    cache = f"{seat['kv_gb']:.2f} GB" if seat["kv_gb"] is not None else ""
    if seat["kv_tokens"] is not None:
        cache = f"{cache} {seat['kv_tokens']} tokens".strip()
    return (
        seat["backend"],
        fits,
        ", ".join(seat["devices"]),
        f"{seat['share']:.0%}" if seat["devices"] else "",
        " ".join(filter(None, (_gb(seat["memory_gb"]), seat["memory_source"]))),
        _gb(seat["loaded_weights_gb"] if seat["loaded_weights_gb"] is not None else seat["weights_gb"]),
        _gb(seat["estimated_gb"]),
        _gb(seat["measured_gb"]),
        _gb(seat["device_gb"]),
        cache,
    )


def _gb(size: float | None) -> str:
    return "" if size is None else f"{size:.2f} GB"
