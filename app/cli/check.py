"""`modelport check`: everything that a start would check, without starting anything."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from app.cli.options import ConfigOption, JsonOption, config_errors_reported, print_json, warn


def check(
    config: ConfigOption = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the file's JSON schema instead.")] = False,
    insecure_no_key: Annotated[
        bool, typer.Option("--insecure-no-key", help="Allow an address beyond this machine without a key.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration file and the environment; all errors at once, exit code 2."""
    from app.config.json_schema import text

    if schema:
        typer.echo(text(), nl=False)
        return
    from app.config.load import load_all
    from app.config.settings import resolve
    from app.config.warnings import warnings
    from app.store.tables.keys import holds_keys
    from app.supervisor.state_folder import StateFolder

    with config_errors_reported():
        options = resolve(os.environ, config=config, insecure_no_key=insecure_no_key)
        loaded = load_all(options, has_stored_keys=holds_keys(StateFolder(options.state).store))
    source = str(options.config_path) if options.config_path is not None else None
    notes = [f"{place}: {problem}" for place, problem in warnings(loaded)]
    if as_json:
        print_json(
            {"file": source, "models": list(loaded.models), "backends": list(loaded.backends), "warnings": notes}
        )
        return
    for note in notes:
        warn(f"{source or 'no file'}: {note}")
    counts = f"models: {len(loaded.models)}, backends: {len(loaded.backends)}, keys: {len(loaded.keys)}"
    typer.echo(f"{source or 'No file: the defaults'}: all right ({counts})")
