"""`modelport serve`: run the gateway in the foreground."""

from __future__ import annotations

import enum
import os
import sys
from typing import Annotated

import typer

from app.cli.options import ConfigOption, StateOption, config_errors_reported


class LogFormat(enum.StrEnum):
    """How log lines are written."""

    CONSOLE = "console"
    JSON = "json"


def serve(
    config: ConfigOption = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on. Else API_HOST, else the file's, else 127.0.0.1.", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port to listen on; 0: a free one. Else API_PORT, the file's, 8000.",
            show_default=False,
        ),
    ] = None,
    state: StateOption = None,
    relays: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Relay processes. Else MODELPORT_RELAYS, the file's, 1.", show_default=False),
    ] = None,
    insecure_no_key: Annotated[
        bool, typer.Option("--insecure-no-key", help="Allow other machines to use it although there is no key.")
    ] = False,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(
            help="Else MODELPORT_LOG_FORMAT, else console on a terminal and json elsewhere.", show_default=False
        ),
    ] = None,
) -> None:
    """Run the gateway until it is told to stop (Ctrl-C, SIGTERM).

    Without a configuration file it serves the demo model, when its package is installed, and every model of the
    Ollama daemon on this machine. It listens on 127.0.0.1:8000; beyond this machine it needs a key.
    """
    with config_errors_reported():
        from app.config.settings import resolve

        options = resolve(
            os.environ,
            config=config,
            state=state,
            host=host,
            port=port,
            relays=relays,
            insecure_no_key=insecure_no_key,
            log_format=log_format.value if log_format is not None else None,
            is_terminal=sys.stderr.isatty(),
        )
        from app.supervisor.main import serve as run

        code = run(options)
    raise typer.Exit(code)
