"""From what bytes a GGUF file was made: digests that are written into its metadata. Blocks.

A file that was made from the same inputs is not made again, and whether a file came from certain weights can be told
later, when those are long elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from app.conversion.model_folder import ModelFolder
from backends.llama_cpp.gguf_contents import SOURCE_DIGEST, read_contents
from backends.llama_cpp.gguf_header import Unreadable
from backends.model_files.digests import file_digest, list_digest

# Keys of a GGUF file's metadata; the values are hexadecimal.
INPUTS: Final = "modelport.inputs"  # of everything that decides what is in the file
WEIGHTS: Final = SOURCE_DIGEST  # of the safetensors files of the model or the adapter
BASE: Final = "modelport.base.digest"  # of those of the adapter's base
_TEXTS: Final = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")


def digests(model: ModelFolder, tell: Callable[[int], None] = lambda _: None) -> Mapping[str, str]:
    """Each file that a conversion reads, by name, with its SHA-256. `tell` is told how many bytes more were read.
    Raises OSError.
    """
    names = [file.name for file in model.weights]
    names += [file.name for file in sorted(model.folder.iterdir()) if file.suffix in _TEXTS and file.is_file()]
    names += [str(file.relative_to(model.folder)) for file in sorted(model.folder.glob("*/config.json"))]
    return {name: file_digest(model.folder / name, tell) for name in dict.fromkeys(names)}


def of_weights(model: ModelFolder, files: Mapping[str, str]) -> str:
    """The digest of the model's weights, from those of its files, as `weights_digest` makes it."""
    digest = list_digest([(name, files[name]) for name in sorted(file.name for file in model.weights)])
    assert digest is not None  # a folder without weights is no ModelFolder
    return digest


def recorded(gguf: Path, key: str) -> str | None:
    """What a GGUF file says under one of the keys above; None where it does not, or is no GGUF file.
    Raises OSError.
    """
    try:
        value = read_contents(gguf).metadata.get(key)
    except Unreadable:
        return None
    return value if isinstance(value, str) else None
