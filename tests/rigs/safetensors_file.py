"""Writes safetensors files, sound ones and others, as a test needs them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Weights:
    """One tensor to write: `data` are its bytes in the file's own order (little-endian)."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def bf16(shape: Sequence[int], value: float) -> Weights:
    """A tensor of which every number is this value, cut to bfloat16."""
    return Weights("BF16", tuple(shape), struct.pack("<f", value)[2:] * prod(shape))


def f32(shape: Sequence[int], values: Sequence[float]) -> Weights:
    """A tensor of these values, repeated until it is full."""
    count = prod(shape)
    repeated = [values[at % len(values)] for at in range(count)]
    return Weights("F32", tuple(shape), struct.pack(f"<{count}f", *repeated))


def as_bytes(tensors: Mapping[str, Weights], metadata: Mapping[str, str] | None = None) -> bytes:
    """The whole file."""
    said: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, tensor in tensors.items():
        said[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at := at + len(tensor.data)],
        }
    header = json.dumps(said).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + b"".join(each.data for each in tensors.values())


def write(file: Path, tensors: Mapping[str, Weights], metadata: Mapping[str, str] | None = None) -> Path:
    """The file, written; its folder is made where it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(as_bytes(tensors, metadata))
    return file
