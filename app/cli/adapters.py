"""`modelport adapters list | load | unload`: the adapters of one backend of the running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli import completion
from app.cli.admin_client import call
from app.cli.options import JsonOption, StateOption, print_json
from app.cli.tables import show

BackendArgument = Annotated[
    str, typer.Argument(help="A backend's name, see `modelport status`.", autocompletion=completion.backends)
]
NameArgument = Annotated[str, typer.Argument(help="The adapter's public name.")]
FolderArgument = Annotated[Path, typer.Argument(help="Its folder, with adapter_config.json.")]

ProofOption = Annotated[
    bool,
    typer.Option(
        "--proof/--no-proof", help="Hold its answers against its base's first. Its files are checked in any case."
    ),
]


def verbs() -> typer.Typer:
    """The commands under `modelport adapters`."""
    app = typer.Typer(help="List, load and unload adapters (LoRA).", no_args_is_help=True)
    app.command("list")(list_)
    app.command()(load)
    app.command()(unload)
    return app


def list_(backend: BackendArgument, state: StateOption = None, as_json: JsonOption = False) -> None:
    """List the adapters of a backend."""
    _show(call("GET", _path(backend), state), as_json)


def load(
    backend: BackendArgument,
    name: NameArgument,
    folder: FolderArgument,
    proof: ProofOption = True,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve an adapter under a public name of its own, once it has proved that it does something. To keep it, write it
    into the configuration as well.
    """
    body = {"name": name, "path": str(folder.expanduser().absolute()), "proof": "on" if proof else "off"}
    _show(call("POST", f"{_path(backend)}/load", state, body=body), as_json)


def unload(
    backend: BackendArgument, name: NameArgument, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """Stop serving an adapter."""
    _show(call("POST", f"{_path(backend)}/unload", state, params={"adapter": name}), as_json)


def _path(backend: str) -> str:
    return f"/admin/backends/{quote(backend, safe='')}/adapters"


def _show(response: Any, as_json: bool) -> None:
    if as_json:
        print_json(response)
    else:
        rows = [(each["name"], each["path"], _proof(each), each["reason"] or "") for each in response["adapters"]]
        show(("adapter", "folder", "proof", "note"), rows)


def _proof(adapter: Any) -> str:
    """How its latest load ended, in a few words."""
    proof = adapter.get("proof")
    if proof is None:
        return ""
    return f"proved in {proof['seconds']:.1f} s" if proof["verdict"] == "proved" else proof["verdict"]
