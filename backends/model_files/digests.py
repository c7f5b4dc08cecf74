"""Digests of files' contents, of a model's weights, and of what an engine's answers are made from: the same digest, the
same bytes. All are of SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from backends.model_files.sources import FileStamp, Role, SourceFile, is_unchanged

BLOCK_BYTES: Final = 4 * 1024 * 1024
DIGITS: Final = 16  # of a serving's digest


class Changed(Exception):
    """The file is not as it was when the stamp was taken."""


def file_digest(path: Path, tell: Callable[[int], object] = lambda _: None) -> str:
    """The digest of the file's content, 64 hex digits, as `sha256sum` prints it. OSError when it cannot be read.

    `tell` is called with the number of bytes after each block; what it raises ends the reading. Blocks.
    """
    digest = hashlib.sha256()
    block = bytearray(BLOCK_BYTES)
    view = memoryview(block)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(view[:size])
            tell(size)
    return digest.hexdigest()


def stamped_digest(stamp: FileStamp, is_over: Callable[[], bool] = lambda: False, share: float = 1.0) -> str:
    """The digest of the stamped file's content. Changed when it is no longer that file; OSError when it cannot be read;
    InterruptedError once `is_over`. Blocks.

    `share`: the part of the time that it reads and computes, over 0 up to 1; it rests for the others' sake.
    """
    began = time.monotonic()

    def rest(_: int) -> None:
        nonlocal began
        if is_over():
            raise InterruptedError(stamp.path)
        if share < 1:
            time.sleep(min(1.0, (time.monotonic() - began) * (1 - share) / share))
        began = time.monotonic()

    if not is_unchanged(stamp):
        raise Changed(stamp.path)
    digest = file_digest(Path(stamp.path), rest)
    if not is_unchanged(stamp):
        raise Changed(stamp.path)
    return digest


def list_digest(files: Sequence[tuple[str, str]]) -> str | None:
    """One digest for the files of these names and digests: of a single file its own, of several that of their list;
    None where there is none.
    """
    if len(files) == 1:
        return files[0][1]
    return value_digest([list(file) for file in files]) if files else None


def weights_digest(files: Iterable[Path], tell: Callable[[int], object] = lambda _: None) -> str | None:
    """The digest of a model's weights, which may be in several files, in the order of their names; None where there is
    none. `tell` as of `file_digest`. OSError when one cannot be read. Blocks.
    """
    return list_digest([(file.name, file_digest(file, tell)) for file in sorted(files, key=lambda file: file.name)])


def role_digest(role: Role, files: Sequence[SourceFile], digests: Mapping[FileStamp, str]) -> str | None:
    """The digest of all files of this role, as `list_digest` makes it; None where there is none."""
    return list_digest([(file.name, digests[file.stamp]) for file in files if file.role == role])


def serving_digest(
    kind: str,
    version: str | None,
    parts: Mapping[str, str | None],
    settings: Sequence[str] = (),
) -> str:
    """The digest of a serving, 16 hex digits: the kind of its engine and its version, the digests of its parts by their
    role, and its settings in any order.
    """
    known = {role: digest for role, digest in parts.items() if digest is not None}
    return value_digest([kind, version, known, sorted(settings)])[:DIGITS]


def value_digest(value: object) -> str:
    """The digest of a value that JSON can hold, 64 hex digits; in whatever order its keys are."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
