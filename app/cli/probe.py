"""`modelport probe`: what the models of the running gateway can do, shown by tiny real requests."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.admin_client import call
from app.cli.options import JsonOption, StateOption, print_json
from app.cli.tables import show

# An engine may have to be started first, and a model be downloaded for it.
_TIMEOUT_S = 900.0
_CAPABILITIES = ("chat", "completion", "embedding", "tools", "vision", "reasoning", "json_schema", "logprobs")


def probe(
    model: Annotated[
        str | None, typer.Argument(help="A public name; default: all of them.", show_default=False)
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also what was tested before.")] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test with tiny real requests what models can do, once per model and engine version."""
    served = [each["name"] for each in call("GET", "/admin/models", state)["models"]]
    names = [model] if model is not None else served
    answers = [_probed(name, again, state) for name in names]
    if as_json:
        print_json(answers)
        return
    rows = [_row(answer["model"], each) for answer in answers for each in answer["probes"]]
    show(("model", "backend", "version", "context", *_CAPABILITIES), rows)


def _probed(name: str, again: bool, state: StateOption) -> Any:
    """One capability after the other, so that it can be seen how far it is."""
    path, answer = f"/admin/models/{quote(name, safe='')}/probe", None
    for capability in _CAPABILITIES:
        typer.echo(f"{name}: {capability} …", err=True)
        asked = {"capability": capability, "again": "true" if again else "false"}
        answer = call("POST", path, state, asked, timeout_s=_TIMEOUT_S)
    return answer


def _row(name: str, told: Any) -> tuple[str, ...]:
    length, known = told["context_length"], told["capabilities"]
    found = (known.get(capability, "") for capability in _CAPABILITIES)
    return (name, told["backend"], told["version"] or "", str(length or ""), *found)
