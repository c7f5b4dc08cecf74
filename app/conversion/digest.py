"""From what bytes a GGUF file was made: digests that are written into its metadata. Blocks.

A file that was made from the same inputs is not made again, and whether a file came from certain weights can be told
later, when those are long elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from app.conversion.model_folder import ModelFolder
from backends.llama_cpp.gguf_contents import read_contents
from backends.llama_cpp.gguf_header import Unreadable

# Keys of a GGUF file's metadata; the values are hexadecimal.
INPUTS: Final = "modelport.inputs"  # of everything that decides what is in the file
WEIGHTS: Final = "modelport.source.weights"  # of the safetensors files of the model or the adapter
BASE: Final = "modelport.base.weights"  # of those of the adapter's base
_PIECE_BYTES: Final = 1 << 20
_TEXTS: Final = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")


def digests(model: ModelFolder, tell: Callable[[int], None] = lambda _: None) -> Mapping[str, str]:
    """Each file that a conversion reads, by name, with its SHA-256. `tell` is told how many bytes more were read.
    Raises OSError.
    """
    names = [file.name for file in model.weights]
    names += [file.name for file in sorted(model.folder.iterdir()) if file.suffix in _TEXTS and file.is_file()]
    names += [str(file.relative_to(model.folder)) for file in sorted(model.folder.glob("*/config.json"))]
    return {name: _sha256(model.folder / name, tell) for name in dict.fromkeys(names)}


def weights_digest(model: ModelFolder, files: Mapping[str, str] | None = None) -> str:
    """One digest for the model's weights. `files`: those of `digests`, where they are known already."""
    known = files if files is not None else {file.name: _sha256(file, lambda _: None) for file in model.weights}
    return of_value([[file.name, known[file.name]] for file in model.weights])


def of_value(value: Any) -> str:
    """The digest of a value that JSON can express."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def recorded(gguf: Path, key: str) -> str | None:
    """What a GGUF file says under one of the keys above; None where it does not, or is no GGUF file.
    Raises OSError.
    """
    try:
        value = read_contents(gguf).metadata.get(key)
    except Unreadable:
        return None
    return value if isinstance(value, str) else None


def _sha256(path: Path, tell: Callable[[int], None]) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            hashed.update(piece)
            tell(len(piece))
    return hashed.hexdigest()
