"""What a configuration names and this machine has not, or has broken: found without starting anything. Blocks.

None of it is a mistake of the file: it may be for another machine, and what is missing may come before the start.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from backends.config.base import BackendConfig
from backends.errors import BackendError
from backends.huggingface.fetcher import is_repository
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.gguf import model_file
from backends.llama_cpp.gguf_header import Unreadable, shape
from backends.ollama.config import OllamaConfig
from backends.vllm.config import VllmConfig
from backends.vllm.parsers import known

Found = Iterator[tuple[str, str]]

_HEADER_BYTES: Final = 8  # of a safetensors file: the length of its header, in front of it
_MOST_HEADER_BYTES: Final = 100_000_000
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.pt", "*.pth")
_PLUGINS: Final = {"tool_call_parser": "--tool-parser-plugin", "reasoning_parser": "--reasoning-parser-plugin"}


def lacks(config: BackendConfig) -> Found:
    """Each as the setting and a sentence about its value."""
    match config:
        case VllmConfig():
            program = _program(config.command[0], config.env)
            yield from _command(config.command[0], program, "install vLLM in an environment of its own, and name it")
            yield from _vllm_model(config)
            for name, path in config.adapters.items():
                if (wrong := adapter_flaw(path)) is not None:
                    yield f"adapters.{name}", wrong
            yield from _files(config)
            yield from _parsers(config, Path(program) if program is not None else None)
        case OllamaConfig() if config.managed:
            program = _program(config.command[0], config.env)
            yield from _command(config.command[0], program, "install Ollama, or name its program")
            if config.models_folder is not None and not Path(config.models_folder).expanduser().is_dir():
                yield "models_folder", f"'{config.models_folder}' is not a folder here"
        case LlamaCppConfig():
            yield from _gguf(config)
        case _:
            return


def _program(command: str, env: Mapping[str, str]) -> str | None:
    return shutil.which(str(Path(command).expanduser()), path=env.get("PATH", os.environ.get("PATH", os.defpath)))


def _command(command: str, program: str | None, advice: str) -> Found:
    if program is None:
        path = Path(command).expanduser()
        told = "is not a program that can be run" if path.is_file() else "is not there"
        yield "command", f"'{command}' {told}: {advice}"


def _gguf(config: LlamaCppConfig) -> Found:
    package = config.model.removeprefix("package:")
    path = Path(config.model).expanduser()
    if package == config.model and not path.is_file():
        yield "model", f"'{config.model}' is not a file here"
        return
    try:
        found = model_file("", config.model)
    except BackendError as exc:
        is_absent = "not installed" in exc.message
        yield "model", f"the package '{package}' is not installed" if is_absent else exc.message
        return
    try:
        shape(found)
    except (OSError, Unreadable) as exc:
        yield "model", f"'{config.model}' is broken or cut short ({exc}): bring it here again"


# -- vLLM


def model_flaw(model: str) -> str | None:
    """What is wrong with what `model` names, as far as it is on this machine; None for a repository on the hub."""
    path = Path(model).expanduser()
    if not path.exists():
        is_path = path.is_absolute() or model.startswith((".", "~"))
        if not is_path and (is_repository(model) or "://" in model or ":" in model):
            return None
        return f"'{model}' is not a folder here" + ("" if is_path else ", nor a name on the hub")
    if path.is_file():
        return f"'{model}' is a file: name the folder in Hugging Face layout" if path.suffix != ".gguf" else None
    if not any((path / each).is_file() for each in ("config.json", "params.json")):
        return f"'{model}' {no_model(path)}"
    weights = [file for pattern in _WEIGHTS for file in sorted(path.glob(pattern))]
    if not weights:
        return f"'{model}' holds no weights (*.safetensors)"
    if (missing := _missing_pieces(path)) is not None:
        return f"'{model}' has not {missing}, which its index names: bring it here as a whole"
    return next((f"'{model}': {wrong}" for file in weights if (wrong := _cut(file)) is not None), None)


def no_model(path: Path) -> str:
    """What a folder without a config.json is instead."""
    told = _read(path / "adapter_config.json")
    if told is None:
        return "holds no model: it has no config.json"
    base = told.get("base_model_name_or_path")
    named = f" ('{base}')" if isinstance(base, str) and base else ""
    return f"is an adapter (LoRA), and no model: set `model` to its base{named}, and name it under `adapters`"


def adapter_flaw(path: str) -> str | None:
    """What is wrong with an adapter's folder; None for a repository on the hub."""
    folder = Path(path).expanduser()
    if not folder.exists():
        is_path = folder.is_absolute() or path.startswith((".", "~"))
        if not is_path and "/" in path and is_repository(path):
            return None
        return f"'{path}' is not a folder here"
    config = folder / "adapter_config.json"
    if not config.is_file():
        is_model = (folder / "config.json").is_file()
        told = "is a model, and no adapter (LoRA)" if is_model else "holds no adapter"
        return f"'{path}' {told}: it has no adapter_config.json"
    told_of = _read(config)
    if told_of is None:
        return f"'{path}' is broken: its adapter_config.json is not JSON"
    if not isinstance(told_of.get("r"), int):
        return f"'{path}' is broken: its adapter_config.json names no rank (`r`)"
    weights = [folder / name for name in ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")]
    found = next((file for file in weights if file.is_file()), None)
    if found is None:
        return f"'{path}' is broken: it has no adapter_model.safetensors"
    wrong = _cut(found)
    return f"'{path}' is broken: {wrong}" if wrong is not None else None


def _vllm_model(config: VllmConfig) -> Found:
    wrong = model_flaw(config.model)
    if wrong is not None:
        yield "model", wrong


def _files(config: VllmConfig) -> Found:
    template = config.chat_template
    if template is not None and "{" not in template and not Path(template).expanduser().is_file():
        yield "chat_template", f"'{template}' is not a file here"


def _parsers(config: VllmConfig, program: Path | None) -> Found:
    given = {word.partition("=")[0].replace("_", "-") for word in config.args}
    for setting, plugin in _PLUGINS.items():
        name = getattr(config, setting)
        if name is None or plugin in given:
            continue
        names, is_installed = known(setting, program)
        if name not in names:
            whose = "the vLLM of `command`" if is_installed else "vLLM 0.32"
            yield setting, f"{whose} has no parser '{name}' {_nearest(name, names)}"


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.5)
    return f"(near it: {', '.join(close)})" if close else f"(it has: {', '.join(sorted(names))})"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _missing_pieces(folder: Path) -> str | None:
    told = _read(folder / "model.safetensors.index.json") or {}
    pieces = told.get("weight_map")
    names = sorted({str(name) for name in pieces.values()}) if isinstance(pieces, dict) else []
    return next((f"'{name}'" for name in names if not (folder / name).is_file()), None)


def _cut(file: Path) -> str | None:
    """What a safetensors file says against itself: its header says how long it must be. Others are only looked at."""
    try:
        size = file.stat().st_size
        if not size:
            return f"{file.name} is empty"
        if file.suffix != ".safetensors":
            return None
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(_HEADER_BYTES), "little")
            if not 2 <= length <= min(size, _MOST_HEADER_BYTES):
                return f"{file.name} is no safetensors file, or cut short"
            header = json.loads(opened.read(length))
    except OSError as exc:
        return f"{file.name} cannot be read: {exc.strerror}"
    except ValueError:
        return f"{file.name} is no safetensors file, or cut short"
    ends = [each.get("data_offsets", [0, 0])[-1] for each in header.values() if isinstance(each, dict)]
    needed = _HEADER_BYTES + length + max((end for end in ends if isinstance(end, int)), default=0)
    return f"{file.name} is cut short: it has {size} of {needed} bytes" if size < needed else None
