"""`modelport check`: everything that a start would check, without starting anything."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.tools.terminal import ConfigOption, JsonOption, config_errors_reported, print_json, warn

if TYPE_CHECKING:
    from app.config import Config


def check(
    config: ConfigOption = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the file's JSON schema instead.")] = False,
    insecure_no_key: Annotated[
        bool, typer.Option("--insecure-no-key", help="Allow an address beyond this machine without a key.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration file and the environment; all errors at once, exit code 2."""
    from app.schema import text

    if schema:
        typer.echo(text(), nl=False)
        return
    from app.config import load_all
    from app.settings import resolve

    with config_errors_reported():
        options = resolve(os.environ, config=config, insecure_no_key=insecure_no_key)
        found = load_all(options)
    source = str(options.config_path) if options.config_path is not None else None
    notes = warnings(found)
    if as_json:
        print_json({"file": source, "models": list(found.models), "backends": list(found.backends), "warnings": notes})
        return
    for note in notes:
        warn(f"{source or 'no file'}: {note}")
    counts = f"models: {len(found.models)}, backends: {len(found.backends)}, keys: {len(found.keys)}"
    typer.echo(f"{source or 'No file: the defaults'}: all right ({counts})")


def warnings(config: Config) -> list[str]:
    """What is legal and probably not meant: a model file that is not there, a backend that no model uses."""
    used = {target.backend for model in config.models.values() for target in model.all_targets()}
    notes = [f"backends.{name}: no model uses it" for name in config.backends if name not in used]
    for name, backend in config.backends.items():
        if backend.kind != "llama_cpp":
            continue
        package = backend.model.removeprefix("package:")
        if package != backend.model:
            if importlib.util.find_spec(package.replace("-", "_")) is None:
                notes.append(f"backends.{name}.model: the package '{package}' is not installed")
        elif not Path(backend.model).expanduser().is_file():
            notes.append(f"backends.{name}.model: '{backend.model}' is not a file here")
    return notes
