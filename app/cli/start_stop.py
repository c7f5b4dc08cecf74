"""`modelport start | stop | restart`: one backend of the running gateway."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from app.cli import completion
from app.cli.admin_client import call
from app.cli.options import JsonOption, StateOption, print_json

BackendArgument = Annotated[
    str, typer.Argument(help="A backend's name, see `modelport status`.", autocompletion=completion.backends)
]


def start(backend: BackendArgument, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Start a backend, also one that was given up after failures."""
    _send(backend, "start", state, as_json)


def stop(backend: BackendArgument, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Stop a backend once its running requests are done. It stays stopped until it is started again."""
    _send(backend, "stop", state, as_json)


def restart(backend: BackendArgument, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Stop a backend and start it again."""
    _send(backend, "restart", state, as_json)


def _send(backend: str, verb: str, state: StateOption, as_json: bool) -> None:
    response = call("POST", f"/admin/backends/{quote(backend, safe='')}/{verb}", state)
    if as_json:
        print_json(response)
    else:
        typer.echo(f"{response['name']}: {response['state']}{': ' + response['reason'] if response['reason'] else ''}")
