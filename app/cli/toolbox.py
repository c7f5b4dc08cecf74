"""What verbs share that work with tool environments: where these are, and who agrees to a large download."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import config_errors_reported, fail, sentence

if TYPE_CHECKING:
    from backends.toolenv.environment import Toolbox

YesOption = Annotated[
    bool,
    typer.Option(
        "--yes",
        "-y",
        help="Agree to the one download that is asked about: PyTorch with its GPU libraries (3 GB). Others are told.",
    ),
]


def folder(state: Path | None) -> Path:
    """The folder with all tool environments: MODELPORT_TOOLS, else a folder of the state folder."""
    from app.config.settings import Settings, state_folder
    from backends.toolenv.environment import tools_folder

    with config_errors_reported():
        settings = Settings.from_env(os.environ)
        return tools_folder(os.environ, state_folder(state or settings.modelport_state))


def toolbox(state: Path | None, *, yes: bool) -> Toolbox:
    """The tool environments that this command may use. Progress goes to standard error; without a terminal a
    download that is asked about is refused unless `yes`.
    """
    from app.supervisor.state_folder import StateError, prepare
    from backends.toolenv.environment import Toolbox

    place = folder(state)
    if not os.environ.get("MODELPORT_TOOLS"):
        try:
            prepare(place.parent)
        except StateError as exc:
            fail(sentence(exc))
    return Toolbox(place, lambda line: typer.echo(line, err=True), lambda question: yes or _agreed(question))


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        typer.echo(question, err=True)
        return False
    return typer.confirm(question, err=True)


@contextlib.contextmanager
def tool_errors_reported() -> Iterator[None]:
    """On a ToolError inside: print its sentence on standard error and end the command with exit code 1."""
    from backends.toolenv.environment import ToolError

    try:
        yield
    except ToolError as exc:
        fail(sentence(exc))
