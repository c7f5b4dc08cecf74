"""The digest of a model's weights: the same digest, the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def weights_digest(files: Sequence[Path]) -> str | None:
    """SHA-256, in hex: of one file its own, of several that of their digests and names as `sha256sum` writes them, in
    the order of names; None where there is none, or one cannot be read. Blocks: it reads them to the end.
    """
    digests: list[tuple[str, str]] = []
    try:
        for path in sorted(files, key=lambda path: path.name):
            with path.open("rb") as file:
                digests.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    except OSError:
        return None
    if len(digests) == 1:
        return digests[0][1]
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests)
    return hashlib.sha256(lines.encode()).hexdigest() if digests else None


def folder_digest(folder: Path) -> str | None:
    """The digest of the safetensors files in a folder in Hugging Face layout."""
    return weights_digest(list(folder.glob("*.safetensors")))
