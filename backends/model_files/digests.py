"""Digests of files' contents, and of what an engine's answers are made from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from backends.model_files.sources import FileStamp, Role, SourceFile, is_unchanged

BLOCK_BYTES: Final = 4 * 1024 * 1024
DIGITS: Final = 16  # of a serving's digest


class Changed(Exception):
    """The file is not as it was when the stamp was taken."""


def file_digest(stamp: FileStamp, is_over: Callable[[], bool] = lambda: False, share: float = 1.0) -> str:
    """The SHA-256 of the file's content, as hex. Changed when it is no longer the stamped file; OSError when it cannot
    be read; InterruptedError once `is_over`.

    `share`: the part of the time that it reads and computes, over 0 up to 1; it rests for the others' sake.
    """
    digest = hashlib.sha256()
    block = bytearray(BLOCK_BYTES)
    view = memoryview(block)
    if not is_unchanged(stamp):
        raise Changed(stamp.path)
    with Path(stamp.path).open("rb", buffering=0) as file:
        began = time.monotonic()
        while size := file.readinto(block):
            if is_over():
                raise InterruptedError(stamp.path)
            digest.update(view[:size])
            busy_s = time.monotonic() - began
            if share < 1:
                time.sleep(min(1.0, busy_s * (1 - share) / share))
            began = time.monotonic()
    if not is_unchanged(stamp):
        raise Changed(stamp.path)
    return digest.hexdigest()


def role_digest(role: Role, files: Sequence[SourceFile], digests: Mapping[FileStamp, str]) -> str | None:
    """The digest of all files of this role: of a single one its SHA-256, of several that of their list; None where
    there is none.
    """
    chosen = [file for file in files if file.role == role]
    if len(chosen) == 1:
        return digests[chosen[0].stamp]
    return _of([[file.name, digests[file.stamp]] for file in chosen]) if chosen else None


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
    return _of([kind, version, known, sorted(settings)])[:DIGITS]


def _of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
