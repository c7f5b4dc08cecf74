"""How large a result will be, and whether disk and memory have room for it. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from app.conversion.errors import ConversionError, NoPlace
from app.conversion.model_folder import ModelFolder

# Bits for a number of a matrix, for each type: where its rows can be divided into blocks of 256, and where only into
# blocks of 32. Mixed types are what the mixture comes to (SmolLM2 and models with 7 and 8 billion parameters).
OUTTYPES: Final[Mapping[str, tuple[float, float]]] = {
    "f32": (32, 32),
    "bf16": (16, 16),
    "f16": (16, 16),
    "q8_0": (8.5, 8.5),
    "q6_k": (6.6, 8.5),
    "q5_k_m": (5.7, 6.9),
    "q5_k_s": (5.6, 6.5),
    "q5_1": (6.1, 6.1),
    "q5_0": (5.6, 5.6),
    "q4_k_m": (4.9, 6.5),
    "q4_k_s": (4.7, 6.0),
    "q4_1": (5.1, 5.1),
    "q4_0": (4.7, 4.7),
    "iq4_nl": (4.7, 4.9),
    "iq4_xs": (4.5, 4.9),
    "q3_k_l": (4.4, 5.6),
    "q3_k_m": (4.0, 5.5),
    "q3_k_s": (3.6, 5.2),
    "q2_k": (3.2, 5.2),
}
BY_CONVERTER: Final = ("f32", "bf16", "f16", "q8_0")
_SIXTEEN: Final = {"BF16": "bf16", "F16": "f16", "F32": "f16"}
_HEADER_BYTES: Final = 24_000_000  # the vocabulary with its merges
_MARGIN: Final = 1.02
_ENVIRONMENT_BYTES: Final = 700_000_000  # Python with PyTorch and transformers
GB: Final = 1e9


def outtype_of(model: ModelFolder, asked: str) -> str:
    """The type that is meant: "auto" is the 16 bits that the weights have. ConversionError for one that is unknown."""
    name = check_outtype(asked)
    return _SIXTEEN.get(model.dtype or "", "bf16") if name == "auto" else name


def check_outtype(asked: str) -> str:
    """The type's name as it is written here, "auto" among them. ConversionError for one that is unknown."""
    name = asked.lower().replace("-", "_")
    if name != "auto" and name not in OUTTYPES:
        near = difflib.get_close_matches(name, OUTTYPES, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConversionError(f"'{asked}' is not a type of weights here: {meant}known are auto, {', '.join(OUTTYPES)}")
    return name


def between(model: ModelFolder, outtype: str) -> str | None:
    """The type of the file that is quantised in a second step; None where the converter writes `outtype` itself."""
    if outtype in BY_CONVERTER:
        return None
    return {"BF16": "bf16", "F16": "f16"}.get(model.dtype or "", "f32")


def expected_bytes(model: ModelFolder, outtype: str) -> int:
    """About how large a GGUF file of this type becomes."""
    large, small = OUTTYPES[outtype]
    bits = 0.0
    for tensor in model.tensors.values():
        if len(tensor.shape) < 2:
            each = 32.0
        else:
            each = large if tensor.shape[-1] % 256 == 0 else small if tensor.shape[-1] % 32 == 0 else max(16, small)
        bits += tensor.parameters * each
    return int(bits / 8) + _HEADER_BYTES


def disk_needed(model: ModelFolder, outtype: str) -> int:
    """How many bytes the disk must have while a model is converted: the file, and the one that it is quantised from."""
    middle = between(model, outtype)
    sizes = expected_bytes(model, outtype) + (expected_bytes(model, middle) if middle is not None else 0)
    return int(sizes * _MARGIN)


def memory_needed(model: ModelFolder) -> int:
    """How much memory the converter takes: it holds a tensor at a time, as it is and in four bytes a number."""
    return _ENVIRONMENT_BYTES + 10 * model.largest_parameters


def memory_to_load(model: ModelFolder) -> int:
    """How much memory the model takes as a whole, where it has to be loaded."""
    return _ENVIRONMENT_BYTES + model.weights_bytes + 8 * model.largest_parameters


def check_disk(what: str, place: str, needed_bytes: int, free_bytes: int) -> None:
    """Raises NoPlace, with both figures, where the disk has no room."""
    if free_bytes < needed_bytes:
        raise NoPlace(
            f"{what} needs {needed_bytes / GB:.2f} GB on the disk of '{place}', which has {free_bytes / GB:.2f} GB "
            "free: make room there"
        )


def check_memory(what: str, needed_bytes: int, free_gb: float | None) -> None:
    """Raises ConversionError, with both figures, where memory has no room. `free_gb` None: not known."""
    if free_gb is not None and free_gb * GB < needed_bytes:
        raise ConversionError(
            f"{what} needs {needed_bytes / GB:.1f} GB of memory, and {free_gb:.1f} GB are free: stop engines that you "
            "do not need now, or do it on another machine"
        )
