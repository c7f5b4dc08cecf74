"""A model of the Hugging Face hub in the cache on this machine: which files an engine needs, and how many are here.

The cache is huggingface_hub's own, so that whatever else uses it finds the model too. Blocks shortly; no network.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

PART: Final = ".modelport.incomplete"
IS_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
IS_BLOB: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
IS_REPOSITORY: Final = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth")  # what vLLM loads, best first
_OTHERS: Final = (
    *(".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite", ".mlmodel", ".nemo"),
    *(".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".mp4", ".wav", ".mp3", ".pdf", ".ipynb", ".zip", ".gz"),
)
_FOLDERS: Final = ("original", "onnx", "openvino", "coreml", "gguf", ".git", "runs", "checkpoint-")


@dataclass(frozen=True, slots=True)
class Pin:
    """What is remembered of a repository: the commit that its revision stood for when it was first looked up, and the
    files that an engine needs, by path with their sizes in bytes.
    """

    model: str
    revision: str | None
    commit: str
    files: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class File:
    """One file of a repository. `blob` is its name in the cache's folder of contents; `sha256` is None for files that
    git itself keeps, which are small.
    """

    path: str
    size_bytes: int
    blob: str
    sha256: str | None


def is_harmless(file: File) -> bool:
    """Whether its path stays inside the repository's folder, and its blob's name inside the folder of blobs.

    The hub sends the names, and whoever publishes a model chooses them. Some mirrors do not name small blobs.
    """
    parts = file.path.split("/")
    is_within = not {"", ".", ".."} & set(parts) and "\0" not in file.path
    is_named = IS_BLOB.fullmatch(file.blob) is not None or (file.sha256 is None and not file.blob)
    return is_within and is_named


def needed(paths: Sequence[str]) -> list[str]:
    """Of a repository's files those that an engine reads: in each folder weights of one format, and no pictures or
    documents.
    """
    kept = [path for path in paths if not _is_left_out(path)]
    formats: dict[str, set[str]] = {}
    for path in kept:
        formats.setdefault(path.rpartition("/")[0], set()).add(PurePosixPath(path).suffix)
    best = {folder: next((one for one in _WEIGHTS if one in suffixes), None) for folder, suffixes in formats.items()}
    return [path for path in kept if _suffix(path) not in _WEIGHTS or _suffix(path) == best[path.rpartition("/")[0]]]


def _suffix(path: str) -> str:
    # `model.bin.index.json` belongs to its weights.
    name = path.removesuffix(".index.json")
    return PurePosixPath(name).suffix


def _is_left_out(path: str) -> bool:
    *folders, name = path.split("/")
    if name.startswith(".git") or name.lower().endswith(_OTHERS) or name in ("training_args.bin", "optimizer.pt"):
        return True
    return any(folder.startswith(_FOLDERS) for folder in folders)


def folder_of(cache: Path, model: str) -> Path:
    """The folder of the cache in which this model is, or would be."""
    return cache / f"models--{model.replace('/', '--')}"


def have_bytes(folder: Path, commit: str, file: File, since: float) -> int:
    """How many bytes of the file are here. Of one that is being downloaded, by us or by others after the time `since`,
    the part that has come.
    """
    with contextlib.suppress(OSError):
        if (folder / "snapshots" / commit / file.path).stat().st_size == file.size_bytes:
            return file.size_bytes
    blob = folder / "blobs" / file.blob
    if not file.blob or blob.exists():
        return file.size_bytes if file.blob else 0
    with contextlib.suppress(OSError):
        return min(file.size_bytes, blob.with_name(blob.name + PART).stat().st_size)
    # What huggingface_hub writes; it leaves the files of killed processes behind, and never resumes one.
    size_bytes = 0
    for part in blob.parent.glob(f"{blob.name}.*.incomplete"):
        with contextlib.suppress(OSError):  # it is complete and has another name meanwhile
            one = part.stat()
            if one.st_mtime >= since:
                size_bytes = max(size_bytes, min(one.st_size, one.st_blocks * 512, file.size_bytes))
    return size_bytes


def in_words(size_bytes: float) -> str:
    """A size for people: `4.9 GB`, `12.0 MB`, `0.5 kB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes / 1e3:.1f} kB"


def is_whole(snapshot: Path, paths: Sequence[str]) -> bool:
    """Whether these files are a whole model or adapter, as far as one can see: a configuration, weights, and every file
    that an index of weights names.
    """
    if not {"config.json", "params.json", "adapter_config.json"} & set(paths):
        return False
    for index in (path for path in paths if path.endswith(".index.json")):
        try:
            named = set(json.loads((snapshot / index).read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        if not named <= set(paths):
            return False
    return any(path.endswith(_WEIGHTS) for path in paths)


def remember(pin: Pin, path: Path) -> None:
    """Write the pin to this file, whole or not at all. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    content = {"model": pin.model, "revision": pin.revision, "commit": pin.commit, "files": dict(pin.files)}
    try:
        new.write_text(json.dumps(content, indent=1))
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def remembered(path: Path, model: str, revision: str | None) -> Pin | None:
    """The pin in this file; None when there is none, it is of another model or revision, or it cannot be read."""
    try:
        content: Any = json.loads(path.read_text())
        files = {str(name): int(size) for name, size in content["files"].items()}
        pin = Pin(content["model"], content["revision"], content["commit"], files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    is_it = (pin.model, pin.revision) == (model, revision) and isinstance(pin.commit, str)
    return pin if is_it and IS_COMMIT.fullmatch(pin.commit) else None


def snapshot(cache: Path, pin: Pin) -> Path:
    """The folder with the files of a pinned commit, in Hugging Face layout, whether they are here or not."""
    return folder_of(cache, pin.model) / "snapshots" / pin.commit


def is_here(cache: Path, pin: Pin) -> bool:
    """Whether every file of the pin is in the cache, in its whole length."""
    folder = snapshot(cache, pin)
    try:
        return bool(pin.files) and all((folder / name).stat().st_size == size for name, size in pin.files.items())
    except OSError:
        return False
