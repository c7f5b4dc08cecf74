"""Which files an engine's answers depend on, and how each looked when the engine was started."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

Role = Literal["weights", "template", "adapter", "settings"]

_WEIGHTS: Final = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf"})
_PICKLES: Final = frozenset({".bin", ".pt", ".pth"})
_OTHERS: Final = frozenset({".json", ".jinja", ".txt", ".model", ".tiktoken", ".py"})
_TEMPLATES: Final = frozenset({"chat_template.jinja", "chat_template.json"})
# What a training leaves beside the model, and no engine reads.
_OF_TRAINING: Final = frozenset(
    {
        *("optimizer.pt", "scheduler.pt", "training_args.bin", "trainer_state.json", "trainer_log.jsonl"),
        *("all_results.json", "train_results.json", "eval_results.json", "requirements.txt"),
    }
)
# Folders in a model's that engines read: parts of a pipeline for embeddings, further templates.
_PARTS: Final = re.compile(r"\d+_\w+|additional_chat_templates")
_MOST_FILES: Final = 5000


class FileStamp(NamedTuple):
    """A file as it was at one moment; another size, time or inode means that it may have another content."""

    path: str
    size_bytes: int
    mtime_ns: int
    inode: int


class SourceFile(NamedTuple):
    """One file. `name`: what it is called within its model, the same wherever that lies."""

    role: Role
    name: str
    stamp: FileStamp


@dataclass(frozen=True, slots=True)
class Sources:
    """What one start of an engine reads, or one adapter: files as they were just before, and the settings that change
    answers, one text for each.
    """

    files: tuple[SourceFile, ...]
    settings: tuple[str, ...] = ()


def file_stamp(path: Path) -> FileStamp:
    """How the file is now. OSError when it is not there."""
    status = path.stat()
    return FileStamp(str(path), status.st_size, status.st_mtime_ns, status.st_ino)


def is_unchanged(stamp: FileStamp) -> bool:
    """Whether the file is still as it was. Blocks shortly."""
    try:
        return file_stamp(Path(stamp.path)) == stamp
    except OSError:
        return False


def in_folder(folder: Path, role: Role = "weights") -> tuple[SourceFile, ...]:
    """Every file of a model's or an adapter's folder in Hugging Face layout that an engine may read. OSError when the
    folder cannot be read. Blocks shortly.

    `role`: what its weights count as; of an adapter everything counts as that.
    """
    paths = sorted(_candidates(folder), key=lambda path: path.relative_to(folder).as_posix())
    if any(path.suffix == ".safetensors" for path in paths):
        paths = [path for path in paths if path.suffix not in _PICKLES]  # engines prefer the former
    return tuple(SourceFile(_role(path, role), path.relative_to(folder).as_posix(), file_stamp(path)) for path in paths)


def given(role: Role, paths: Iterable[Path]) -> tuple[SourceFile, ...]:
    """These files, in their order, whatever they are called. OSError when one is not there. Blocks shortly."""
    return tuple(SourceFile(role, f"{role}-{number}", file_stamp(path)) for number, path in enumerate(paths))


def named_in(words: Sequence[str]) -> tuple[SourceFile, ...]:
    """The files that an engine's further arguments name by their paths: `--flag=FILE`, `FILE`. Blocks shortly."""
    paths = [Path(word.rpartition("=")[2]).expanduser() for word in words if "/" in word]
    return given("settings", [path for path in paths if path.is_file()])


def _role(path: Path, of_weights: Role) -> Role:
    if of_weights == "adapter" or path.suffix in _WEIGHTS:
        return of_weights
    return "template" if path.name in _TEMPLATES or path.parent.name == "additional_chat_templates" else "settings"


def _candidates(folder: Path) -> Iterator[Path]:
    count = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            count += 1
            if count > _MOST_FILES:
                raise OSError(None, "it holds too many files", str(folder))
            if entry.is_dir() and _PARTS.fullmatch(entry.name):
                yield from (path for path in Path(entry.path).iterdir() if path.is_file() and _matters(path.name))
            elif _matters(entry.name) and entry.is_file():
                yield Path(entry.path)


def _matters(name: str) -> bool:
    is_read = Path(name).suffix in _WEIGHTS | _OTHERS
    return is_read and not name.startswith(".") and name not in _OF_TRAINING
