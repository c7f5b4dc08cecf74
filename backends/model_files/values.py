"""Whether the numbers of a tensor are sound: all finite, and not all zero.

Neither numpy nor torch is at hand, and a loop over millions of numbers would take minutes. What tells an infinity or a
NaN stands in a number's highest byte, and for some types in one bit of the next: slices with a stride take these bytes
out, and whole slices are compared at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backends.model_files.safetensors import BadFile, Tensor

PIECE_BYTES: Final = 1 << 20  # a multiple of every type's size; short enough to let other threads run in between


@dataclass(frozen=True, slots=True)
class _Floats:
    """How a type of floating-point numbers is stored, little-endian: in `width` bytes.

    A number whose highest byte is in `special` is an infinity or a NaN; where the exponent reaches into the byte below
    it, that byte must also have all bits of `below`.
    """

    width: int
    special: bytes
    below: int = 0


_BOTH_SIGNS: Final = b"\x7f\xff"
_FIVE_BITS: Final = bytes(byte for byte in range(256) if byte & 0x7C == 0x7C)
_FLOATS: Final[Mapping[str, _Floats]] = {
    "BF16": _Floats(2, _BOTH_SIGNS, 0x80),
    "F16": _Floats(2, _FIVE_BITS),
    "F32": _Floats(4, _BOTH_SIGNS, 0x80),
    "F64": _Floats(8, _BOTH_SIGNS, 0xF0),
    "F8_E4M3": _Floats(1, _BOTH_SIGNS),
    "F8_E5M2": _Floats(1, _FIVE_BITS),
}
_BYTES: Final = bytes(range(256))


@dataclass(frozen=True, slots=True)
class Values:
    """What the numbers of one tensor are. A tensor without numbers is finite and zero."""

    is_finite: bool
    is_zero: bool


def look(file: Path, tensor: Tensor) -> Values:
    """Read the tensor's numbers and say what they are; of other types than floating point only whether they are zero.

    Blocks for about a second for each GB. BadFile when the file cannot be read or has become shorter.
    """
    kind = _FLOATS.get(tensor.dtype)
    is_finite = is_zero = True
    left = tensor.end - tensor.begin
    try:
        with file.open("rb") as opened:
            opened.seek(tensor.begin)
            while left:
                piece = opened.read(min(PIECE_BYTES, left))
                if not piece:
                    raise BadFile(f"{file.name} has become shorter while it was read")
                left -= len(piece)
                is_zero = is_zero and _is_zero(piece, kind)
                is_finite = is_finite and (kind is None or _is_finite(piece, kind))
    except OSError as exc:
        raise BadFile(f"{file.name} cannot be read: {exc.strerror or exc}") from exc
    return Values(is_finite, is_zero)


def _is_zero(piece: bytes, kind: _Floats | None) -> bool:
    if kind is None:
        return not piece.strip(b"\0")
    top = piece[kind.width - 1 :: kind.width]
    if top.translate(None, b"\0\x80"):  # 0x80 is the sign of -0.0
        return False
    return not any(piece[at :: kind.width].strip(b"\0") for at in range(kind.width - 1))


def _is_finite(piece: bytes, kind: _Floats) -> bool:
    top = piece[kind.width - 1 :: kind.width]
    if not any(byte in top for byte in kind.special):
        return True
    if not kind.below:
        return False
    # As one long number each: a bit is left where both bytes of the same number are special.
    tops = top.translate(_marks(kind.special))
    below = piece[kind.width - 2 :: kind.width]
    belows = below.translate(_marks(bytes(byte for byte in _BYTES if byte & kind.below == kind.below)))
    return not int.from_bytes(tops, "little") & int.from_bytes(belows, "little")


def _marks(special: bytes) -> bytes:
    return bytes(byte in special for byte in range(256))
