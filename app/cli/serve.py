"""`modelport serve`: run the gateway in the foreground."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from app.cli.options import ConfigOption, StateOption, config_errors_reported
from app.log_format import LogFormat


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
        bool, typer.Option("--insecure-no-key", help="Let other machines use it without a key.")
    ] = False,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(
            help="Else MODELPORT_LOG_FORMAT, else console on a terminal and json elsewhere.", show_default=False
        ),
    ] = None,
) -> None:
    """Run the gateway until it is stopped (Ctrl-C, SIGTERM).

    Without a configuration file it serves the demo model, when its package is installed, and every model of the
    Ollama daemon on this machine. It listens on 127.0.0.1:8000; other addresses need a key.
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
            log_format=log_format,
            is_terminal=sys.stderr.isatty(),
        )
        from app.supervisor import main

        code = main.serve(options)
    raise typer.Exit(code)
