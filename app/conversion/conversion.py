"""What came out of a conversion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Conversion:
    """A GGUF file and what it was made from.

    `outtype`: "q4_k_m" and the like. `parameters`: how many numbers the weights are. `bits_per_weight`: of the file's
    tensors, without its header. `source_bytes`: of the weights that it was made from. `was_there`: the same file from
    the same inputs was there already. `remarks`: what the user should know, a sentence each.
    """

    path: Path
    outtype: str
    size_bytes: int
    parameters: int
    bits_per_weight: float
    source_bytes: int
    seconds: float
    was_there: bool = False
    remarks: tuple[str, ...] = ()
