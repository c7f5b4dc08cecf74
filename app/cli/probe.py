"""`modelport probe`: test with tiny real requests what the models of the running gateway can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli import completion
from app.cli.admin_client import call
from app.cli.options import JsonOption, StateOption, print_json
from app.cli.tables import show

# An engine may have to be started first, and a model be downloaded for it.
_TIMEOUT_S = 900.0


def probe(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A public name; default: all of them.", show_default=False, autocompletion=completion.models
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Test again what was tested before.")] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test with tiny real requests what models can do, once per model and engine version."""
    from backends.endpoint import CAPABILITIES

    served = [each["name"] for each in call("GET", "/admin/models", state)["models"]]
    names = [model] if model is not None else served
    responses = [_probe(name, CAPABILITIES, again, state) for name in names]
    if as_json:
        print_json(responses)
        return
    rows = [_row(response["model"], each, CAPABILITIES) for response in responses for each in response["probes"]]
    show(("model", "backend", "version", "context", *CAPABILITIES), rows)


def _probe(name: str, capabilities: Sequence[str], again: bool, state: StateOption) -> Any:
    """One request per capability, so that the progress can be shown; the last response has all results."""
    path, response = f"/admin/models/{quote(name, safe='')}/probe", None
    for capability in capabilities:
        typer.echo(f"{name}: {capability} …", err=True)
        params = {"capability": capability, "again": "true" if again else "false"}
        response = call("POST", path, state, params, timeout_s=_TIMEOUT_S)
    return response


def _row(name: str, result: Any, capabilities: Sequence[str]) -> tuple[str, ...]:
    outcomes = (result["capabilities"].get(capability, "") for capability in capabilities)
    return (name, result["backend"], result["version"] or "", str(result["context_length"] or ""), *outcomes)
