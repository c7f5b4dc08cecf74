"""Which tensors a safetensors file holds, and where: 8 bytes with the header's length, the header in JSON, the data.

The rules are those of the format's own reader: the data has no holes and no overlaps, and ends where the file ends. So
a file that was cut off while it was written or copied is found without reading its data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

MAX_HEADER_BYTES: Final = 100_000_000  # the format's own limit
BITS: Final[Mapping[str, int]] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
}


class BadFile(Exception):
    """The file cannot be read as safetensors; the message is one sentence that names the file, without its folder."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor; its data are the bytes `begin` to `end` (not included) of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself. `size_bytes` is that of the whole file."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    size_bytes: int


def read_header(file: Path) -> Header:
    """The tensors of a safetensors file, in the order of their data. BadFile where it is not whole or not sound."""
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            return _header(file.name, opened, size)
    except FileNotFoundError as exc:
        raise BadFile(f"{file.name} is not there") from exc
    except OSError as exc:
        raise BadFile(f"{file.name} cannot be read: {exc.strerror or exc}") from exc


def shards(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a Hugging Face folder, in order: `model.safetensors`, or what the index beside it lists.

    Empty where there is neither. BadFile when the index cannot be read.
    """
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        single = folder / "model.safetensors"
        return (single,) if single.exists() else ()
    try:
        names = json.loads(index.read_bytes())["weight_map"].values()
        return tuple(folder / name for name in sorted({str(each) for each in names}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise BadFile(f"{index.name} is no index of safetensors files") from exc


def read_headers(folder: Path) -> Mapping[str, Tensor]:
    """The tensors of all safetensors files of a Hugging Face folder, by their names. BadFile as `read_header`."""
    return {name: tensor for file in shards(folder) for name, tensor in read_header(file).tensors.items()}


def _header(name: str, opened: BinaryIO, size: int) -> Header:
    first = opened.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or (first[:1] in b"PK\x80" and length > MAX_HEADER_BYTES):
        what = "is empty" if size == 0 else "is cut off" if len(first) < 8 else "is a pickle, not a safetensors file"
        raise BadFile(f"{name} {what}")
    if length > MAX_HEADER_BYTES:
        raise BadFile(f"{name} is no safetensors file: its header would have {length} bytes")
    if 8 + length > size:
        raise BadFile(f"{name} is cut off: it has {size} bytes, and its header alone needs {8 + length}")
    try:
        said = json.loads(opened.read(length))
    except (ValueError, RecursionError) as exc:
        raise BadFile(f"{name} is no safetensors file: its header is not JSON") from exc
    if not isinstance(said, dict):
        raise BadFile(f"{name} is no safetensors file: its header is not an object")
    metadata = said.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise BadFile(f"{name} is no safetensors file: its metadata is not an object")
    tensors = {key: _tensor(name, key, value, 8 + length) for key, value in said.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_order(name, ordered, 8 + length, size)
    return Header(ordered, {str(key): str(value) for key, value in metadata.items()}, size)


def _tensor(name: str, key: str, said: Any, start: int) -> Tensor:
    try:
        dtype, shape, (begin, end) = said["dtype"], said["shape"], said["data_offsets"]
    except (KeyError, TypeError, ValueError) as exc:
        raise BadFile(f"{name} says nothing usable of its tensor {key!r}") from exc
    if not isinstance(shape, list) or not all(type(each) is int and each >= 0 for each in (*shape, begin, end)):
        raise BadFile(f"{name} says nothing usable of its tensor {key!r}")
    bits = BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise BadFile(f"{name} has the tensor {key!r} of the unknown type {dtype!r}")
    if (end - begin) * 8 != prod(shape) * bits:
        raise BadFile(f"{name} has {end - begin} bytes for its tensor {key!r}, and its shape needs another number")
    return Tensor(dtype, tuple(shape), start + begin, start + end)


def _check_order(name: str, ordered: Mapping[str, Tensor], start: int, size: int) -> None:
    at = start
    for key, tensor in ordered.items():
        if tensor.begin != at:
            raise BadFile(f"{name} is not sound: the data of its tensor {key!r} is not where that before it ends")
        at = tensor.end
    if at > size:
        raise BadFile(f"{name} is cut off: it has {size} bytes of {at}")
    if at < size:
        raise BadFile(f"{name} is not sound: {size - at} bytes at its end belong to no tensor")
