"""`modelport logs`: what an engine wrote."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli import completion
from app.cli.admin_client import call
from app.cli.log_follower import LogFollower
from app.cli.options import BAD_CONFIG, REFUSED, JsonOption, StateOption, fail, print_json, warn
from app.cli.status import duration
from app.cli.terminal_text import terminal_text

PAUSE_S = 0.5  # between two looks


def logs(
    backend: Annotated[
        str, typer.Argument(help="A backend's name, see `modelport status`.", autocompletion=completion.backends)
    ],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many lines at most.")] = 200,
    life: Annotated[
        int | None,
        typer.Option("--life", help="Of which start, as `modelport status` counts them; -1: the one before this."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what it writes, also across its restarts.")
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the last lines that a backend's process wrote, since its last start or in an earlier one."""
    if follow:
        if life is not None:
            fail("--follow goes on with the latest start: leave --life out.", BAD_CONFIG)
        with contextlib.suppress(KeyboardInterrupt):
            _follow(backend, lines, state, as_json=as_json)
        return
    asked = {"lines": str(lines)} | ({} if life is None else {"life": str(life)})
    response = call("GET", _path(backend), state, asked)
    if as_json:
        print_json(response)
        return
    for line in response["lines"]:
        typer.echo(_shown(line))
    for each in response["lives"]:
        if each["ended_ago_s"] is not None:
            reason = each["reason"] or "it was stopped"
            warn(f"start {each['life']} ended {duration(each['ended_ago_s'])} ago: {reason} (--life {each['life']})")
    if not response["lines"] and life is not None:
        warn(f"{backend}: start {response['life']} wrote nothing.")
    elif not response["lines"]:
        warn(_why_no_lines(backend, call("GET", "/admin/status", state)["health"]["backends"]))


def _shown(line: str) -> str:
    """A file or a program gets what the engine wrote; a terminal nothing that would steer it."""
    return terminal_text(line) if sys.stdout.isatty() else line


def _path(backend: str) -> str:
    return f"/admin/backends/{quote(backend, safe='')}/logs"


def _follow(backend: str, lines: int, state: Path | None, *, as_json: bool) -> None:
    """Ends where there is nothing to follow, and with the gateway."""
    follower = LogFollower()
    answer = call("GET", _path(backend), state, {"lines": str(lines)})
    if answer["life"] is None:
        status = next(e for e in call("GET", "/admin/status", state)["health"]["backends"] if e["name"] == backend)
        if not status["is_managed"]:
            fail(_why_no_lines(backend, [status]), REFUSED)
    while True:
        for news in follower.take(answer):
            if as_json:
                kind = "remark" if news.is_remark else "line"
                typer.echo(json.dumps({"life": news.life, kind: news.text}, ensure_ascii=False))
            elif news.is_remark:
                warn(f"{backend}: {news.text}")
            else:
                typer.echo(_shown(news.text))
        sys.stdout.flush()
        time.sleep(PAUSE_S)
        answer = call("GET", _path(backend), state, {} if follower.life is None else {"life": str(follower.life)})


def _why_no_lines(name: str, backends: Sequence[Mapping[str, Any]]) -> str:
    backend = next((each for each in backends if each["name"] == name), None)
    if backend is not None and backend["is_managed"]:
        return f"{name}: it has written nothing yet."
    return f"{name}: the gateway does not run it, so its log is elsewhere."
