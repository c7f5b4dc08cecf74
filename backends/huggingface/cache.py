"""A model of the hub in its cache on this machine: which files an engine needs, and how much of them is here.

The cache is huggingface_hub's own, so whatever else uses it finds the model too. Blocks shortly; no network.
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
    """What is remembered of a repository: the commit that its revision was first found to be, and its needed files."""

    model: str
    revision: str | None
    commit: str
    files: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class File:
    """One file of a repository. `sha256` is None for those that git itself keeps, which are small."""

    path: str
    size_bytes: int
    blob: str
    sha256: str | None


def is_harmless(file: File) -> bool:
    """Whether it lies within its repository's folder, and its blob within that of the blobs.

    The names are the hub's, and whoever publishes a model chooses them. Some mirrors do not name small blobs.
    """
    parts = file.path.split("/")
    is_within = not {"", ".", ".."} & set(parts) and "\0" not in file.path
    is_named = IS_BLOB.fullmatch(file.blob) is not None or (file.sha256 is None and not file.blob)
    return is_within and is_named


def needed(paths: Sequence[str]) -> list[str]:
    """Of a repository's files those that an engine reads: in each folder weights of one format, nothing for people."""
    kept = [path for path in paths if not _is_left_out(path)]
    found: dict[str, set[str]] = {}
    for path in kept:
        found.setdefault(path.rpartition("/")[0], set()).add(PurePosixPath(path).suffix)
    best = {folder: next((one for one in _WEIGHTS if one in suffixes), None) for folder, suffixes in found.items()}
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
    """Where the cache has this model."""
    return cache / f"models--{model.replace('/', '--')}"


def have_bytes(folder: Path, commit: str, file: File, since: float) -> int:
    """How much of it is here: of a file that is being downloaded, by whomever since that moment, that part."""
    with contextlib.suppress(OSError):
        if (folder / "snapshots" / commit / file.path).stat().st_size == file.size_bytes:
            return file.size_bytes
    blob = folder / "blobs" / file.blob
    if not file.blob or blob.exists():
        return file.size_bytes if file.blob else 0
    with contextlib.suppress(OSError):
        return min(file.size_bytes, blob.with_name(blob.name + PART).stat().st_size)
    # What huggingface_hub writes; it leaves the files of killed processes behind, and never goes on with one.
    found = 0
    for part in blob.parent.glob(f"{blob.name}.*.incomplete"):
        with contextlib.suppress(OSError):  # it has its last name meanwhile
            one = part.stat()
            if one.st_mtime >= since:
                found = max(found, min(one.st_size, one.st_blocks * 512, file.size_bytes))
    return found


def in_words(size_bytes: float) -> str:
    """As people say it."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes / 1e3:.1f} kB"


def is_whole(snapshot: Path, paths: Sequence[str]) -> bool:
    """Whether there is a configuration and every file of weights that an index names."""
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
    """Write it down, in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    told = {"model": pin.model, "revision": pin.revision, "commit": pin.commit, "files": dict(pin.files)}
    try:
        new.write_text(json.dumps(told, indent=1))
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def remembered(path: Path, model: str, revision: str | None) -> Pin | None:
    """What was written down for this revision of it; None when nothing was, or it cannot be read."""
    try:
        told: Any = json.loads(path.read_text())
        files = {str(name): int(size) for name, size in told["files"].items()}
        found = Pin(told["model"], told["revision"], told["commit"], files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    is_it = (found.model, found.revision) == (model, revision) and isinstance(found.commit, str)
    return found if is_it and IS_COMMIT.fullmatch(found.commit) else None


def snapshot(cache: Path, pin: Pin) -> Path:
    """The folder with its files, in Hugging Face layout."""
    return folder_of(cache, pin.model) / "snapshots" / pin.commit


def is_here(cache: Path, pin: Pin) -> bool:
    """Whether every file of it is in the cache, in its whole length."""
    folder = snapshot(cache, pin)
    try:
        return bool(pin.files) and all((folder / name).stat().st_size == size for name, size in pin.files.items())
    except OSError:
        return False
