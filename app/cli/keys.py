"""`modelport keys new`: a key for a client."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from app.cli.options import JsonOption, config_errors_reported, print_json


def verbs() -> typer.Typer:
    """The commands under `modelport keys`."""
    app = typer.Typer(help="Make keys for clients.", no_args_is_help=True)
    # Without a callback Typer would fold its only command into `keys` itself.
    app.callback()(lambda: None)
    app.command("new")(new_key)
    return app


def new_key(
    name: Annotated[str, typer.Argument(help="Whose key it is; shown in logs.")],
    models: Annotated[
        str | None, typer.Option(help="The models it opens, comma separated. Else all.", show_default=False)
    ] = None,
    role: Annotated[
        Literal["user", "admin"], typer.Option(help="`admin` may also see and steer the gateway.")
    ] = "user",
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until it ends. Else never.", show_default=False)
    ] = None,
    priority: Annotated[
        Literal["interactive", "batch"],
        typer.Option(help="`batch`: where requests wait, those of other keys come first."),
    ] = "interactive",
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Write it into this configuration file.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it once. The configuration keeps only its digest."""
    from app.config.load import loads
    from app.config.yaml_edit import add_entry, read, scalar, write
    from app.keys import new

    secret, sha256 = new(name)
    now = datetime.datetime.now(datetime.UTC)
    made = entry(name, sha256, models, role, days, now, priority)
    with config_errors_reported():
        if config is not None:
            text = add_entry(read(config), "keys", None, made)
            loads(text, os.environ, source=str(config), is_lenient=True)
            write(config, text)
    if as_json:
        print_json({"key": secret, "entry": made})
        return
    typer.echo(f"The key, shown only now:\n\n  {secret}\n")
    if config is not None:
        typer.echo(f"{config}: added {name}. A running gateway takes it with `modelport reload`.")
    else:
        typer.echo(f"Its entry in modelport.yaml:\n\nkeys:\n  - {scalar(made)}")


def entry(
    name: str,
    sha256: str,
    models: str | None,
    role: str,
    days: int | None,
    now: datetime.datetime,
    priority: str = "interactive",
) -> dict[str, Any]:
    """The entry for the list `keys:` of the configuration; `models`: comma separated. Defaults are left out. Pure."""
    made: dict[str, Any] = {"name": name, "sha256": sha256}
    listed = [model.strip() for model in (models or "").split(",") if model.strip()]
    if listed:
        made["models"] = listed
    if role != "user":
        made["role"] = role
    if priority != "interactive":
        made["priority"] = priority
    if days is not None:
        made["expires"] = (now + datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return made
