"""A LoRA adapter is added to the weights of its base, one tensor after the other: no model is loaded, and every tensor
that the adapter does not touch is copied byte by byte. The result is PEFT's, bit by bit.

Request: `base` and `out` (folders), `files` (the base's safetensors files by name), `adapter` (its safetensors file),
`scales` (by the name of the base's tensor: the names of A and B, the factor, whether the result is turned). Result:
null.
"""

from __future__ import annotations

import importlib
import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from app.conversion.children import answering
else:
    sys.path.append(str(Path(__file__).parent))
    answering = importlib.import_module("answering")

PIECE_BYTES = 16 << 20
TYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


class Unmergeable(Exception):
    """Why there is no result: the rest of a sentence about the adapter."""


def merge(request: Mapping[str, Any]) -> None:
    """Write all files of the merged model's weights. Raises Unmergeable."""
    torch = importlib.import_module("torch")
    load = importlib.import_module("safetensors").safe_open
    base, out = Path(request["base"]), Path(request["out"])
    total = sum((base / name).stat().st_size for name in request["files"])
    done = 0
    with torch.inference_mode(), load(request["adapter"], framework="pt") as adapter:
        for name in request["files"]:
            with (base / name).open("rb") as source, (out / name).open("wb") as target:
                header, start = read_head(source)
                target.write(struct.pack("<Q", start - 8) + header)
                for tensor, about in in_order(json.loads(header)):
                    begin, end = about["data_offsets"]
                    source.seek(start + begin)
                    if tensor in request["scales"]:
                        weight = as_tensor(torch, source.read(end - begin), about)
                        target.write(as_bytes(torch, added(torch, adapter, weight, request["scales"][tensor])))
                    else:
                        copy(source, target, end - begin)
                    done += end - begin
                    answering.progress(done, total)


def added(torch: Any, adapter: Any, weight: Any, scale: Mapping[str, Any]) -> Any:
    """What PEFT's `merge_and_unload` makes of the weight: it computes and adds in 32 bits, then rounds once."""
    first, second = (adapter.get_tensor(scale[name]).to(torch.float32) for name in ("a", "b"))
    delta = second @ first
    delta = (delta.T if scale["turned"] else delta) * scale["factor"]
    if delta.shape != weight.shape:
        raise Unmergeable(
            f"{scale['a']} does not fit the base: it is for {tuple(delta.shape)}, not {tuple(weight.shape)}"
        )
    if not bool(torch.isfinite(delta).all()):
        raise Unmergeable(f"{scale['a']} or {scale['b']} has numbers that are not finite")
    weight += delta
    return weight


def read_head(source: BinaryIO) -> tuple[bytes, int]:
    """The header as it stands, and where the data begin."""
    length = int(struct.unpack("<Q", source.read(8))[0])
    return source.read(length), 8 + length


def in_order(header: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The tensors in the order of their data."""
    tensors = [(name, about) for name, about in header.items() if name != "__metadata__"]
    return sorted(tensors, key=lambda item: item[1]["data_offsets"])


def as_tensor(torch: Any, data: bytes, about: Mapping[str, Any]) -> Any:
    """Bytes of a file as a tensor."""
    if about["dtype"] not in TYPES:
        raise Unmergeable(f"the base's weights are {about['dtype']}, to which nothing can be added")
    kind = getattr(torch, TYPES[about["dtype"]])
    return torch.frombuffer(bytearray(data), dtype=kind).reshape(about["shape"])


def as_bytes(torch: Any, tensor: Any) -> Any:
    """A tensor as bytes of a file."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy this many bytes from where the source is."""
    while size:
        piece = source.read(min(size, PIECE_BYTES))
        target.write(piece)
        size -= len(piece)


def sentence(exc: BaseException) -> str:
    """What went wrong, as the rest of a sentence about the adapter."""
    if isinstance(exc, OSError):
        return f"{exc.filename}: {exc.strerror or exc}"
    text = " ".join(str(exc).split())
    return text if isinstance(exc, Unmergeable) else f"{type(exc).__name__}: {text[:300]}"


if __name__ == "__main__":
    answering.answer(merge, sentence)
