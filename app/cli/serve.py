"""`modelport serve`: run the gateway in the foreground."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

import typer

from app.cli.options import (
    ConfigOption,
    HostOption,
    InsecureOption,
    LogFormatOption,
    PortOption,
    StateOption,
    config_errors_reported,
)


def serve(
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    state: StateOption = None,
    relays: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|auto",
            help="Relay processes; `auto`: by the cores that engines leave. Else MODELPORT_RELAYS, the file's, 1.",
            show_default=False,
        ),
    ] = None,
    insecure_no_key: InsecureOption = False,
    log_format: LogFormatOption = None,
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
            relays=_relays(relays),
            insecure_no_key=insecure_no_key,
            log_format=log_format,
            is_terminal=sys.stderr.isatty(),
        )
        from app.supervisor import main

        code = main.serve(options)
    raise typer.Exit(code)


def _relays(given: str | None) -> int | Literal["auto"] | None:
    if given is None:
        return None
    from app.config.settings import relays

    try:
        return relays(given)
    except ValueError as exc:
        raise typer.BadParameter(str(exc).replace("{value}", repr(given)), param_hint="--relays") from None
