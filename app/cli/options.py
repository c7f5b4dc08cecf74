"""What the verbs share: common options, exit codes, and how they report that something is wrong."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from app.cli.terminal_text import terminal_text
from app.log_format import LogFormat

REFUSED = 1
BAD_CONFIG = 2
NO_GATEWAY = 3
STOPPED = 130  # as shells have it for Ctrl-C

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The configuration file. Else MODELPORT_CONFIG, else modelport.yaml here.",
        show_default=False,
    ),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state", help="The state folder. Else MODELPORT_STATE, else the user's state folder.", show_default=False
    ),
]
HostOption = Annotated[
    str | None,
    typer.Option(help="Address to listen on. Else API_HOST, else the file's, else 127.0.0.1.", show_default=False),
]
PortOption = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, help="Port to listen on; 0: a free one. Else API_PORT, the file's, 8000.", show_default=False
    ),
]
InsecureOption = Annotated[bool, typer.Option("--insecure-no-key", help="Let other machines use it without a key.")]
LogFormatOption = Annotated[
    LogFormat | None,
    typer.Option(help="Else MODELPORT_LOG_FORMAT, else console on a terminal and json elsewhere.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TrustOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that comes with the model.")
]


def sentence(error: Exception) -> str:
    """The error's text with one full stop at its end."""
    text = str(error)
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def fail(lines: Sequence[str] | str, code: int = REFUSED) -> NoReturn:
    """Print the lines on standard error and end the command with this exit code."""
    for line in [lines] if isinstance(lines, str) else lines:
        typer.secho(terminal_text(line), err=True, fg="red")
    raise typer.Exit(code)


def refuse_missing(training: Path | None) -> None:
    """End the command with exit code 2 where this training file was named and is no file."""
    if training is not None and not training.expanduser().is_file():
        what = "is not a file" if training.expanduser().exists() else "is not there"
        fail(f"The training file '{training}' {what}.", BAD_CONFIG)


def warn(line: str) -> None:
    """Print the line on standard error and go on."""
    typer.secho(terminal_text(line), err=True, fg="yellow")


def print_json(value: Any) -> None:
    """Print the value as one JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextlib.contextmanager
def config_errors_reported() -> Iterator[None]:
    """On a ConfigError inside: print its lines on standard error and end the command with exit code 2."""
    from app.config.yaml_document import ConfigError

    try:
        yield
    except ConfigError as exc:
        fail(exc.errors, BAD_CONFIG)
