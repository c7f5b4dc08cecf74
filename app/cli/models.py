"""`modelport models`: the public names of the running gateway."""

from __future__ import annotations

from app.cli.admin_client import call
from app.cli.options import JsonOption, StateOption, print_json
from app.cli.status import note
from app.cli.tables import show


def models(state: StateOption = None, as_json: JsonOption = False) -> None:
    """List the models that the running gateway serves: names, backends, states."""
    response = call("GET", "/admin/models", state)
    if as_json:
        print_json(response)
        return
    rows = [
        (
            model["name"],
            model["state"],
            f"{model['serving']} of {model['engines']}" if model["engines"] > 1 else "",
            str(model["restarts"] or ""),
            ", ".join(model["backends"]),
            str(model["context_length"] or ""),
            ", ".join(model["aliases"]),
            ", ".join(model["fallbacks"]),
            model["parity"] or "",
            note(model["reason"], model["last_failure"], model["replacement"]),
        )
        for model in response["models"]
    ]
    rows += [
        (wildcard, "", "", "", "", "", "", "", "", "every model of its backend") for wildcard in response["wildcards"]
    ]
    show(
        ("model", "state", "serving", "restarts", "backends", "context", "aliases", "fallbacks", "parity", "note"), rows
    )
