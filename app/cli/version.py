"""`modelport version`: which version is installed."""

from __future__ import annotations

import typer

from app import __version__
from app.cli.options import JsonOption, print_json


def version(as_json: JsonOption = False) -> None:
    """Print the version of this installation."""
    if as_json:
        print_json({"version": __version__})
    else:
        typer.echo(f"modelport {__version__}")
