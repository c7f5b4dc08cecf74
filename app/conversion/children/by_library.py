"""A GGUF file is quantised row by row with the packages gguf and libgguf, where the program cannot do it.

Request: `source`, `out`, `outtype`, `expected_bytes`. Result: null.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.conversion.children import answering
else:
    sys.path.append(str(Path(__file__).parent))
    answering = importlib.import_module("answering")

PIECE = 8 << 20  # numbers that are turned at once


def quantize(request: Mapping[str, Any]) -> None:
    """Write the file."""
    gguf = importlib.import_module("gguf")
    numpy = importlib.import_module("numpy")
    rules = runpy.run_path(str(Path(__file__).with_name("tensor_types.py")))
    reader = gguf.GGUFReader(request["source"])
    metadata = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    architecture = metadata["general.architecture"].contents()
    writer = gguf.GGUFWriter(request["out"], architecture)
    number, _ = rules["FILE_TYPES"][request["outtype"]]
    for name, field in metadata.items():
        if name not in ("general.architecture", "general.file_type", "general.quantization_version"):
            kind = field.types[0]
            part = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub_type=part)
    writer.add_file_type(number)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    types = chosen_types(rules, request["outtype"], architecture, metadata, reader.tensors)
    for tensor in reader.tensors:
        shape = [int(length) for length in reversed(tensor.shape)]
        kind = types[tensor.name] if types[tensor.name] is not None else tensor.tensor_type
        size = size_of(gguf, shape, kind)
        writer.add_tensor_info(tensor.name, byte_shape(gguf, shape, kind), numpy.dtype("uint8"), size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    done = 0
    for tensor in reader.tensors:
        done = write(gguf, writer, tensor, types[tensor.name], done, request["expected_bytes"])
    writer.close()


def chosen_types(
    rules: Mapping[str, Any], outtype: str, architecture: str, metadata: Mapping[str, Any], tensors: Any
) -> dict[str, Any]:
    """The type of each tensor as gguf knows it; None: as it is."""
    gguf = importlib.import_module("gguf")

    def value(name: str) -> int:
        field = metadata.get(f"{architecture}.{name}")
        content = field.contents() if field is not None else 0
        return max(content) if isinstance(content, list) else int(content)

    heads, shared = value("attention.head_count"), value("attention.head_count_kv")
    names = {tensor.name for tensor in tensors}
    groups = heads // shared if shared else 1
    asked = rules["TensorTypes"](
        outtype,
        architecture,
        value("block_count"),
        sum("attn_v.weight" in name or "attn_qkv.weight" in name for name in names),
        groups,
        value("expert_count"),
        "output.weight" in names,
        value("block_count") == 80 and groups == 8,
    )
    shapes = {tensor.name: tuple(int(length) for length in tensor.shape) for tensor in tensors}
    chosen = {}
    for name in sorted(shapes, key=rules["place_in_order"]):
        wanted = asked.type_of(name, shapes[name])
        chosen[name] = gguf.GGMLQuantizationType[wanted] if wanted is not None else None
    return chosen


def write(gguf: Any, writer: Any, tensor: Any, kind: Any, done: int, expected: int) -> int:
    """Write the data of one tensor; how many bytes are written then."""
    libgguf = importlib.import_module("libgguf")
    numpy = importlib.import_module("numpy")
    out = writer.fout[0]
    writer.write_padding(out, out.tell())
    if kind is None or kind == tensor.tensor_type:
        tensor.data.tofile(out)
        done += int(tensor.data.nbytes)
    else:
        for rows in pieces(gguf, tensor):
            turned = libgguf.quantize_rows(numpy.ascontiguousarray(rows), int(kind))
            turned.tofile(out)
            done += int(turned.nbytes)
            answering.progress(done, expected)
    writer.write_padding(out, out.tell())
    return done


def pieces(gguf: Any, tensor: Any) -> Iterator[Any]:
    """The rows of a tensor as numbers of four bytes, some at a time."""
    row = int(tensor.shape[0])
    data = tensor.data.reshape(-1, tensor.data.shape[-1])
    at_once = max(1, PIECE // row)
    for begin in range(0, data.shape[0], at_once):
        yield gguf.dequantize(data[begin : begin + at_once], tensor.tensor_type)


def byte_shape(gguf: Any, shape: list[int], kind: Any) -> list[int]:
    """The shape that the writer wants: the last length in bytes."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return [*shape[:-1], shape[-1] // block * size]


def size_of(gguf: Any, shape: list[int], kind: Any) -> int:
    """How many bytes the tensor takes."""
    size = 1
    for length in byte_shape(gguf, shape, kind):
        size *= length
    return size


def sentence(exc: BaseException) -> str:
    """What went wrong in the two packages."""
    if isinstance(exc, OSError):
        return str(exc.strerror or exc)
    return f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"


if __name__ == "__main__":
    answering.answer(quantize, sentence)
