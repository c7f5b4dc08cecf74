"""The content hash of a model's folder: what its conversion and its serving depend on, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from app.registration.journal import RegistrationError
from backends.model_files.digests import file_digest, value_digest

Stamps = Mapping[str, tuple[int, int, str]]
# Of a folder in Hugging Face layout: weights, configuration, tokenizer, template, and code that comes with it. What a
# training leaves beside them (logs, pictures, checkpoints, a GGUF, a Modelfile) changes nothing.
_SUFFIXES: Final = (".safetensors", ".json", ".jinja", ".model", ".txt", ".py", ".tiktoken")
_NOT: Final = ("trainer_state.json", "trainer_log.json", "all_results.json", "train_results.json", "eval_results.json")


def stamp_of(path: Path, known: Stamps, tell: Callable[[int], None]) -> tuple[int, int, str]:
    """(size, time stamp, SHA-256) of a file, taken from `known` where size and time stamp are the same. `tell` is
    called with the number of bytes after each block. RegistrationError where it cannot be read.
    """
    try:
        status = path.stat()
        before = known.get(str(path))
        if before is not None and before[:2] == (status.st_size, status.st_mtime_ns):
            tell(status.st_size)
            return before
        return status.st_size, status.st_mtime_ns, file_digest(path, tell)
    except OSError as exc:
        raise RegistrationError(f"{path} cannot be read: {exc.strerror}") from exc


def model_files(folder: Path) -> list[Path]:
    """The files of a model's folder that count, in order. RegistrationError where it cannot be read."""
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix in _SUFFIXES and path.name not in _NOT and not path.name.startswith(".") and path.is_file()
        )
    except OSError as exc:
        raise RegistrationError(f"{folder} cannot be read: {exc.strerror}") from exc


def folder_digest(
    folder: Path, known: Stamps, tell: Callable[[int, int], None]
) -> tuple[str, dict[str, tuple[int, int, str]]]:
    """The content hash of the folder, and the stamps of its files. `tell(done, total)`: bytes. Blocks."""
    files = model_files(folder)
    total, done = sum(file.stat().st_size for file in files), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        tell(done, total)

    stamps = {str(file): stamp_of(file, known, count) for file in files}
    return value_digest([(Path(path).name, digest) for path, (_, _, digest) in stamps.items()]), stamps
