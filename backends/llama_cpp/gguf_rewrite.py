"""A copy of a GGUF file with other metadata: its tensors stay what they are, byte for byte.

Source: the specification of GGUF in the ggml project. Offsets of tensors count from the beginning of the data, so they
stay; only the data's beginning moves, to the next multiple of the alignment behind the header.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backends.llama_cpp.gguf_header import MAGIC, Unreadable, read_number, read_pairs, read_text

_STRING: Final = 8
_INTEGER: Final = 4  # 32 bits, without a sign, as tokens' numbers are written
_BOOLEAN: Final = 7
_ALIGNMENT: Final = "general.alignment"
_BLOCK: Final = 1 << 22


def rewrite(source: Path, target: Path, changes: Mapping[str, str | int | bool | None]) -> None:
    """Write `target`, which is `source` with these metadata: a text, a number or a truth in place of what was there, or
    as one more; None: without it. Raises Unreadable or OSError; then there is no `target`. Blocks: it copies the file.
    """
    fresh = target.with_name(f".{target.name}.new")
    try:
        with source.open("rb") as file, fresh.open("wb") as written:
            head, data = _head(source, changes)
            written.write(head)
            file.seek(data)
            shutil.copyfileobj(file, written, _BLOCK)
            written.flush()
            os.fsync(written.fileno())
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def _head(source: Path, changes: Mapping[str, str | int | bool | None]) -> tuple[bytes, int]:
    """The new header, up to the data, and where the data begins in the old file."""
    with source.open("rb") as file:
        begin = len(MAGIC) + 4 + 8 + 8
        kept: list[bytes] = []
        alignment = 32
        at = begin
        for key, value in read_pairs(file):
            end = file.tell()
            if key == _ALIGNMENT and isinstance(value, int) and value > 0:
                alignment = value
            if key not in changes:
                kept.append(_slice(source, at, end))
            at = end
        file.seek(len(MAGIC))
        version, tensors = read_number(file, "I"), int(read_number(file, "Q"))
        file.seek(at)
        for _ in range(tensors):
            read_text(file)
            dimensions = int(read_number(file, "I"))
            file.seek(8 * dimensions + 4 + 8, 1)
        infos = _slice(source, at, file.tell())
        data = -(-file.tell() // alignment) * alignment
    if _ALIGNMENT in changes:
        raise Unreadable("its alignment cannot be changed: its tensors are placed by it")
    added = [_pair(key, value) for key, value in changes.items() if value is not None]
    head = MAGIC + struct.pack("<IQQ", int(version), tensors, len(kept) + len(added)) + b"".join([*kept, *added, infos])
    return head + b"\0" * (-len(head) % alignment), data


def _slice(path: Path, begin: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def _pair(key: str, value: str | int | bool) -> bytes:
    name = _text(key)
    if isinstance(value, bool):
        return name + struct.pack("<I?", _BOOLEAN, value)
    if isinstance(value, int):
        return name + struct.pack("<II", _INTEGER, value)
    return name + struct.pack("<I", _STRING) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
