"""All that a GGUF file says of itself: its metadata and which tensors it has. The weights are not read.

Source: the specification of GGUF in the ggml project, versions 2 and 3; the sizes of types: `ggml_type` there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

from backends.llama_cpp.gguf_header import MAGIC, UnknownType, Unreadable, Value, read_number, read_pairs, read_text

# Our key in the metadata: which checkpoint the file was made from, as the digest of its weights.
SOURCE_DIGEST: Final = "modelport.source.digest"
_MOST_TENSORS: Final = 200_000
_MOST_DIMENSIONS: Final = 4
# Names of the types of tensors, with the numbers in one block and the block's bytes.
TYPES: Final[Mapping[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: its type's name, how many numbers it has, and how many bytes they take."""

    type: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufContents:
    """`metadata`: by key; lists of texts, and very long lists, are None. `tensors`: by name, in the file's order."""

    metadata: Mapping[str, Value]
    tensors: Mapping[str, GgufTensor]

    @property
    def parameters(self) -> int:
        """How many numbers the weights are."""
        return sum(tensor.parameters for tensor in self.tensors.values())

    @property
    def weights_bytes(self) -> int:
        """How many bytes they take."""
        return sum(tensor.size_bytes for tensor in self.tensors.values())

    @property
    def bits_per_weight(self) -> float:
        """How many bits one of them takes on average; 0 for a file without tensors."""
        return self.weights_bytes * 8 / self.parameters if self.parameters else 0.0


def read_contents(path: Path) -> GgufContents:
    """What the file says of itself. Raises Unreadable, also where it is shorter than its tensors need, or OSError.
    Blocks: it reads the header, which is megabytes.
    """
    with path.open("rb") as file:
        metadata = dict(read_pairs(file))
        behind = file.tell()
        file.seek(len(MAGIC) + 4)
        count = int(read_number(file, "Q"))
        if count > _MOST_TENSORS:
            raise Unreadable(f"its header says that it has {count} tensors")
        file.seek(behind)
        tensors: dict[str, GgufTensor] = {}
        end = 0
        for _ in range(count):
            name = read_text(file)
            dimensions = int(read_number(file, "I"))
            if dimensions > _MOST_DIMENSIONS:
                raise Unreadable(f"its tensor {name!r} has {dimensions} dimensions")
            shape = tuple(int(read_number(file, "Q")) for _ in range(dimensions))
            kind = int(read_number(file, "I"))
            if kind not in TYPES:
                raise UnknownType(f"its tensor {name!r} is of the unknown type {kind}")
            label, block, size = TYPES[kind]
            tensors[name] = GgufTensor(label, shape, prod(shape) // block * size)
            end = max(end, int(read_number(file, "Q")) + tensors[name].size_bytes)
        alignment = metadata.get("general.alignment", 32)
        step = alignment if isinstance(alignment, int) and alignment > 0 else 32
        data = -(-file.tell() // step) * step
        file.seek(0, 2)
        if tensors and data + end > file.tell():
            raise Unreadable(f"it is cut short: it has {file.tell()} of {data + end} bytes")
    return GgufContents(metadata, tensors)
