"""`modelport add`: one more model in the configuration file."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.options import ConfigOption, config_errors_reported, fail, warn


@dataclass(frozen=True, slots=True)
class Addition:
    """A backend and the model on it. `model`: the backend's own name for it, None for the public name.

    A backend that is in the file already is used instead when it has the same values under `identifying_keys`.
    """

    backend_name: str
    backend: Mapping[str, Any]
    identifying_keys: tuple[str, ...]
    model: str | None = None


def add(
    name: Annotated[str, typer.Argument(help="The public name: what clients will write as `model`.")],
    gguf: Annotated[Path | None, typer.Option(help="A GGUF file, for the embedded engine.", show_default=False)] = None,
    url: Annotated[
        str | None,
        typer.Option(help="An OpenAI-compatible server's base URL, usually ending in /v1.", show_default=False),
    ] = None,
    ollama: Annotated[
        str | None, typer.Option(help="A model of the Ollama daemon, by its name there.", show_default=False)
    ] = None,
    vllm: Annotated[
        str | None,
        typer.Option(help="A model folder or a repository on the Hugging Face hub, for vLLM.", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With --url: the server's own name for the model.", show_default=False)
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="With --url: the environment variable with the server's key.", show_default=False)
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Add a model to the configuration file (made when there is none); its comments stay."""
    if sum(source is not None for source in (gguf, url, ollama, vllm)) != 1:
        fail("Give exactly one of --gguf, --url, --ollama and --vllm.", 2)
    if url is None and (model is not None or api_key_env is not None):
        fail("--model and --api-key-env go with --url.", 2)
    if gguf is not None:
        addition = _gguf(name, gguf)
    elif url is not None:
        addition = _url(name, url, model, api_key_env)
    elif ollama is not None:
        addition = Addition("ollama", {"kind": "ollama"}, ("kind",), ollama)
    else:
        assert vllm is not None
        addition = _vllm(name, vllm)
    with config_errors_reported():
        path, backend = _write(name, addition, config)
    typer.echo(f"{path}: added {name} on the backend {backend}. A running gateway takes it with `modelport reload`.")


def _gguf(name: str, file: Path) -> Addition:
    from backends.llama_cpp.gguf_header import MAGIC

    path = file.expanduser().absolute()
    if not path.is_file():
        fail(f"'{file}' is not a file.")
    with path.open("rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            fail(f"'{file}' is not a GGUF file: it does not begin with the letters GGUF.")
    return Addition(_backend_name(name), {"kind": "llama_cpp", "model": str(path)}, ("kind", "model"))


def _url(name: str, url: str, model: str | None, variable: str | None) -> Addition:
    backend = {"kind": "remote", "url": url}
    if variable is not None:
        if not variable.isidentifier():
            fail(f"'{variable}' is not the name of an environment variable.", 2)
        if not os.environ.get(variable):
            warn(f"{variable} is not set here: it must be where the gateway runs.")
        backend["api_key"] = f"${{{variable}}}"
    return Addition(_backend_name(name), backend, ("kind", "url", "api_key"), model)


def _vllm(name: str, model: str) -> Addition:
    folder = Path(model).expanduser()
    if not folder.is_dir() and (folder.is_absolute() or model.startswith((".", "~"))):
        fail(f"'{model}' is not a folder.")
    if folder.is_dir() and not (folder / "config.json").is_file():
        fail(f"'{model}' holds no model in Hugging Face layout: it has no config.json.")
    if shutil.which("vllm") is None:
        warn("There is no `vllm` on the PATH: set `command` to the bin/vllm of vLLM's own environment.")
    where = str(folder.absolute()) if folder.is_dir() else model
    return Addition(_backend_name(name), {"kind": "vllm", "model": where}, ("kind", "model"), _backend_name(name))


def _backend_name(public_name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", public_name).strip("-") or "engine"


def _write(name: str, addition: Addition, config: Path | None) -> tuple[Path, str]:
    from app.config.load import loads
    from app.config.settings import CONFIG_NAME, Settings, config_path
    from app.config.yaml_document import ConfigError, parse
    from app.config.yaml_edit import read, write

    path = config_path(config or Settings.from_env(os.environ).modelport_config) or Path(CONFIG_NAME)
    text = read(path)
    try:
        if name in (parse(text, {}, is_lenient=True).tree.get("models") or {}):
            raise ConfigError([f"models.{name}: exists already"])
        after, backend = added(text, name, addition)
    except ConfigError as exc:
        raise ConfigError([f"{path}: {error}" for error in exc.errors]) from exc
    loads(after, os.environ, source=str(path), is_lenient=True)
    write(path, after)
    return path, backend


def added(text: str, name: str, addition: Addition) -> tuple[str, str]:
    """The configuration's text with the model added, and the name of its backend, which is added if need be. Pure."""
    from app.config.yaml_document import parse
    from app.config.yaml_edit import add_entry

    # Parsed leniently, so that `${NAME}` is compared as it is written.
    backends: dict[str, Any] = parse(text, {}, is_lenient=True).tree.get("backends") or {}
    for name_there, backend in backends.items():
        if all(backend.get(key) == addition.backend.get(key) for key in addition.identifying_keys):
            backend_name = name_there
            break
    else:
        backend_name = addition.backend_name
        number = 2
        while backend_name in backends:
            backend_name, number = f"{addition.backend_name}-{number}", number + 1
        text = add_entry(text, "backends", backend_name, addition.backend)
    entry = {"backend": backend_name} | ({} if addition.model is None else {"model": addition.model})
    return add_entry(text, "models", name, entry), backend_name
