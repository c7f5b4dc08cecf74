"""What a model's folder lets expect of its serving. Blocks: it reads files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from app.certificate.observation import SeenFile
from app.certificate.serving import NEUTRAL, Expectation
from app.conversion.errors import ConversionError
from app.conversion.model_folder import read_model_folder
from backends.model_files.digests import weights_digest

_GGUF: Final = ".gguf"


def expectation(
    folder: Path, file: SeenFile, context_length: int | None = None, base: Path | None = None
) -> Expectation:
    """Of the model in a folder in Hugging Face layout, which is served from that file: the sampling that its
    generation_config.json names, and the digest of its weights. An adapter has its base's sampling where it names none,
    and no weights that are served as they lie there.
    """
    is_converted = file.path is not None and file.path.endswith(_GGUF)
    is_adapter = (folder / "adapter_config.json").is_file()
    is_folder = file.path is not None and not is_converted and not is_adapter
    return Expectation(
        context_length=context_length,
        sampling=named_sampling(folder) or (named_sampling(base) if base is not None else {}),
        sha256=folder_digest(folder) if is_folder else None,
        source=_recorded_as(folder) if is_converted else None,
    )


def _recorded_as(folder: Path) -> str | None:
    """The digest under which a file that was converted from this folder says so; None where it holds no model."""
    try:
        return weights_digest(read_model_folder(folder).weights)
    except (ConversionError, OSError):
        return None


def folder_digest(folder: Path) -> str | None:
    """The digest of the weights that an engine reads of a folder in Hugging Face layout; None where it has none, or one
    cannot be read. Blocks.
    """
    try:
        return weights_digest(folder.glob("*.safetensors"))
    except OSError:
        return None


def named_sampling(folder: Path) -> dict[str, float]:
    """What the model's generation_config.json says of how answers are drawn; empty where it says nothing."""
    try:
        said: Any = json.loads((folder / "generation_config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(said, dict):
        return {}
    return {name: float(said[name]) for name in NEUTRAL if isinstance(said.get(name), int | float)}


def folder_of(file: SeenFile) -> Path | None:
    """The folder in Hugging Face layout that a served file lies in; None where it lies in none."""
    if file.path is None:
        return None
    path = Path(file.path)
    place = path if path.is_dir() else path.parent
    return place if (place / "config.json").is_file() else None
