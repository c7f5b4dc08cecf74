"""A model's or an adapter's folder in Hugging Face layout: what is in it, and what is wrong with it. Blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from backends.huggingface.fetcher import is_repository

_HEADER_BYTES: Final = 8  # of a safetensors file: the length of its header, in front of it
_MOST_HEADER_BYTES: Final = 100_000_000
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.pt", "*.pth")


def config_of(model: str) -> dict[str, Any] | None:
    """The model's `config.json`, decoded; None where it is not here or not a JSON object."""
    return _json_object(Path(model).expanduser() / "config.json")


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
    adapter = _json_object(path / "adapter_config.json")
    if adapter is None:
        return "holds no model: it has no config.json"
    base = adapter.get("base_model_name_or_path")
    named = f" ('{base}')" if isinstance(base, str) and base else ""
    return f"is an adapter (LoRA), not a model: set `model` to its base{named}, and name it under `adapters`"


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
        instead = "is a model, not an adapter (LoRA)" if is_model else "holds no adapter"
        return f"'{path}' {instead}: it has no adapter_config.json"
    adapter = _json_object(config)
    if adapter is None:
        return f"'{path}' is broken: its adapter_config.json is not JSON"
    if not isinstance(adapter.get("r"), int):
        return f"'{path}' is broken: its adapter_config.json names no rank (`r`)"
    candidates = [folder / name for name in ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")]
    weights = next((file for file in candidates if file.is_file()), None)
    if weights is None:
        return f"'{path}' is broken: it has no adapter_model.safetensors"
    flaw = _file_flaw(weights)
    return f"'{path}' is broken: {flaw}" if flaw is not None else None


def adapter_rank(folder: Path) -> int | None:
    """The rank of the adapter in this folder; None where its file does not say it."""
    rank = (_json_object(folder / "adapter_config.json") or {}).get("r")
    try:
        return int(rank) if rank is not None else None
    except (TypeError, ValueError):
        return None


def _json_object(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _missing_shard(folder: Path) -> str | None:
    """A file with a part of the weights that the index names and the folder does not have."""
    index = _json_object(folder / "model.safetensors.index.json") or {}
    shards = index.get("weight_map")
    names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
    return next((f"'{name}'" for name in names if not (folder / name).is_file()), None)


def _file_flaw(file: Path) -> str | None:
    """What is wrong with a file of weights: a safetensors file's header says how long the file must be. Of other
    formats only the size is looked at.
    """
    try:
        size = file.stat().st_size
        if not size:
            return f"{file.name} is empty"
        if file.suffix != ".safetensors":
            return None
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(_HEADER_BYTES), "little")
            if not 2 <= length <= min(size, _MOST_HEADER_BYTES):
                return f"{file.name} is not a safetensors file, or is cut short"
            header = json.loads(opened.read(length))
    except OSError as exc:
        return f"{file.name} cannot be read: {exc.strerror}"
    except ValueError:
        return f"{file.name} is not a safetensors file, or is cut short"
    if not isinstance(header, dict):
        return f"{file.name} is not a safetensors file, or is cut short"
    ends = [each.get("data_offsets", [0, 0])[-1] for each in header.values() if isinstance(each, dict)]
    needed = _HEADER_BYTES + length + max((end for end in ends if isinstance(end, int)), default=0)
    return f"{file.name} is cut short: it has {size} of {needed} bytes" if size < needed else None
