"""A model's or an adapter's folder in Hugging Face layout: what is in it, and what is wrong with it. Blocks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from backends.huggingface.fetcher import is_repository
from backends.model_files.adapter_file import flaw, read_base
from backends.model_files.adapter_settings import ranks
from backends.model_files.safetensors import BadFile, read_header
from backends.model_files.sources import Sources, given, in_folder, named_in

# Flags with which answers depend on more than the model's folder.
_OTHER_MODELS: Final = frozenset(
    {
        *("--tokenizer", "--hf-config-path", "--speculative-config", "--lora-modules", "--config", "--model"),
        "--default-mm-loras",
    }
)
# Flags that do not change what an engine answers, or that are known by their files.
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("--host", "--port", "--served-model-name", "--shutdown-timeout", "--model", "--chat-template", "--revision"),
        *("--tokenizer-revision", "--code-revision", "--gpu-memory-utilization", "--kv-cache-memory-bytes"),
        *("--max-loras", "--max-lora-rank", "--enable-lora", "--enable-sleep-mode", "--master-addr"),
        *("--no-enable-log-requests", "--disable-uvicorn-access-log", "--max-num-seqs"),
    }
)
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.pt", "*.pth")


def config_of(model: str) -> dict[str, Any] | None:
    """The model's `config.json`, decoded; None where it is not here or not a JSON object."""
    return json_object(Path(model).expanduser() / "config.json")


def weights_bytes(model: str) -> int | None:
    """The size of the weights in a model's folder; None where there are none."""
    folder = Path(model).expanduser()
    files = list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
    return sum(file.stat().st_size for file in files) if files else None


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
    if not any((path / name).is_file() for name in ("config.json", "params.json")):
        return f"'{model}' {not_a_model(path)}"
    weights = [file for pattern in _WEIGHTS for file in sorted(path.glob(pattern))]
    if not weights:
        return f"'{model}' holds no weights (*.safetensors)"
    if (missing := _missing_shard(path)) is not None:
        return f"'{model}' does not have {missing}, which its index names: bring it here as a whole"
    return next((f"'{model}': {flaw}" for file in weights if (flaw := _file_flaw(file)) is not None), None)


def not_a_model(path: Path) -> str:
    """What a folder without a config.json is instead, as the end of a sentence that begins with its name."""
    adapter = json_object(path / "adapter_config.json")
    if adapter is None:
        return "holds no model: it has no config.json"
    base = adapter.get("base_model_name_or_path")
    named = f" ('{base}')" if isinstance(base, str) and base else ""
    return f"is an adapter (LoRA), not a model: set `model` to its base{named}, and name it under `adapters`"


def adapter_flaw(path: str, base: str | None = None, max_rank: int | None = None) -> str | None:
    """What is wrong with an adapter's folder; None for a repository on the hub. `base`: the model that it is for;
    `max_rank`: the highest rank that its engine takes.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        is_path = folder.is_absolute() or path.startswith((".", "~"))
        if not is_path and "/" in path and is_repository(path):
            return None
        return f"'{path}' is not a folder here"
    known = Path(base).expanduser() if base is not None else None
    wrong = flaw(folder, read_base(known) if known is not None and known.is_dir() else None, max_rank=max_rank)
    return f"'{path}' {wrong}" if wrong is not None else None


def adapter_rank(folder: Path) -> int | None:
    """The highest rank of the adapter in this folder; None where its file does not say it."""
    return max(ranks(json_object(folder / "adapter_config.json") or {}), default=None)


def sources(
    folder: Path | None, template: str | None, line: Sequence[str], args: Sequence[str], settings: Sequence[str]
) -> Sources | None:
    """What the answers of a start with this argument list depend on: the model's folder, a template in a file of its
    own, files among the further arguments (`args`), and what is set (`settings` beside the line's own).

    None where the model is not here, or the arguments bring in other models. OSError when a file cannot be read.
    """
    if folder is None or any(word.partition("=")[0] in _OTHER_MODELS for word in args):
        return None
    own = in_folder(folder) if folder.is_dir() else given("weights", [folder])
    path = Path(template).expanduser() if template and "\n" not in template else None
    if path is not None and path.is_file():
        own = (*(file for file in own if file.role != "template"), *given("template", [path]))
    flags = [word for word in line if word.startswith("--") and word.partition("=")[0] not in _WITHOUT_EFFECT]
    inline = [f"template={template}"] if template is not None and (path is None or not path.is_file()) else []
    return Sources((*own, *named_in(args)), (*flags, *inline, *settings))


def json_object(path: Path) -> dict[str, Any] | None:
    """What a file holds, decoded; None where it is not here or not a JSON object."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _missing_shard(folder: Path) -> str | None:
    """A file with a part of the weights that the index names and the folder does not have."""
    index = json_object(folder / "model.safetensors.index.json") or {}
    shards = index.get("weight_map")
    names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
    return next((f"'{name}'" for name in names if not (folder / name).is_file()), None)


def _file_flaw(file: Path) -> str | None:
    """What is wrong with a file of weights: a safetensors file's header says how long the file must be. Of other
    formats only the size is looked at.
    """
    try:
        if file.suffix == ".safetensors":
            read_header(file)
        elif not file.stat().st_size:
            return f"{file.name} is empty"
    except BadFile as exc:
        return str(exc)
    except OSError as exc:
        return f"{file.name} cannot be read: {exc.strerror}"
    return None
