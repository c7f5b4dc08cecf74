"""`modelport check`: everything that a start would check, without starting anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import ConfigOption, JsonOption, config_errors_reported, print_json, warn

if TYPE_CHECKING:
    from app.config.model import Config


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

    with config_errors_reported():
        options = resolve(os.environ, config=config, insecure_no_key=insecure_no_key)
        loaded = load_all(options)
    source = str(options.config_path) if options.config_path is not None else None
    notes = warnings(loaded)
    if as_json:
        print_json(
            {"file": source, "models": list(loaded.models), "backends": list(loaded.backends), "warnings": notes}
        )
        return
    for note in notes:
        warn(f"{source or 'no file'}: {note}")
    counts = f"models: {len(loaded.models)}, backends: {len(loaded.backends)}, keys: {len(loaded.keys)}"
    typer.echo(f"{source or 'No file: the defaults'}: all right ({counts})")


def warnings(config: Config) -> list[str]:
    """What is allowed and probably not intended, as `place: text`: backends that no model uses, files and programs that
    are missing on this machine or broken. Blocks: it looks for them.
    """
    from backends.kinds import preflight

    used = {target.backend for model in config.models.values() for target in model.all_targets()}
    # An adapter is public by itself.
    used |= {name for name, each in config.backends.items() if (run := each.as_managed()) and run.adapter_paths()}
    notes = [f"backends.{name}: no model uses it" for name in config.backends if name not in used]
    for name, backend in config.backends.items():
        notes += [f"backends.{name}.{key}: {problem}" for key, problem in preflight(backend).missing()]
    return notes
