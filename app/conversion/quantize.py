"""A GGUF file becomes a smaller one. Blocks.

Two quantisers, neither of which needs a compiler: the program in ik-llama-cpp-python, which must first quantise a tiny
file rightly; where it cannot be had or fails, the package libgguf with llama.cpp's rules. What either makes is looked
at before it counts.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.conversion.conversion import Conversion
from app.conversion.errors import ConversionError
from app.conversion.progress import ProgressReport, Unseen
from app.conversion.room import OUTTYPES
from app.conversion.scripts import script
from app.conversion.workplace import put_in_place, workplace
from backends.llama_cpp.gguf_contents import GgufContents, read_contents
from backends.llama_cpp.gguf_header import UnknownType, Unreadable
from backends.toolenv.child import call
from backends.toolenv.environment import Toolbox, ToolError

_UNQUANTIZED: Final = frozenset(("F32", "F16", "BF16"))
# Of the tiny file: rows of one block of 256, and what may be lost in Q8_0.
_ROW: Final = 256
_ROWS: Final = 32
_LOST: Final = 0.01


def quantize(
    gguf: Path, outtype: str, out: Path, toolbox: Toolbox, progress: ProgressReport, *, replace: bool = False
) -> Conversion:
    """Quantise a GGUF file with 16 or 32 bits a weight; `outtype` as "q4_k_m". Raises ConversionError or ToolError."""
    started = time.monotonic()
    before = _contents(gguf)
    kinds = {tensor.type for tensor in before.tensors.values()}
    if kinds - _UNQUANTIZED:
        raise ConversionError(
            f"'{gguf}' is quantised already ({', '.join(sorted(kinds - _UNQUANTIZED))}): name the file with 16 bits"
        )
    if out.exists() and not replace:
        raise ConversionError(f"'{out}' is there already: name another with --out, or replace it with --replace")
    with workplace(out) as folder:
        made = folder / "quantised.gguf"
        quantise_into(gguf, outtype, made, toolbox, progress, _about(before, outtype))
        after = _contents(made)
        put_in_place(made, out)
    return Conversion(
        out,
        outtype,
        out.stat().st_size,
        after.parameters,
        after.bits_per_weight,
        before.weights_bytes,
        time.monotonic() - started,
    )


def quantise_into(
    gguf: Path, outtype: str, made: Path, toolbox: Toolbox, progress: ProgressReport, expected_bytes: int
) -> None:
    """Quantise to a path where nothing is yet, in a workplace. Raises ConversionError or ToolError."""
    progress.step(f"quantising to {outtype}")
    reason = by_program(gguf, outtype, made, toolbox, progress, expected_bytes)
    if reason is None:
        return
    made.unlink(missing_ok=True)
    toolbox.say(f"llama-quantize is not used ({reason}); the quantiser in libgguf is")
    by_library(gguf, outtype, made, toolbox, progress, expected_bytes)


def by_program(
    gguf: Path, outtype: str, made: Path, toolbox: Toolbox, progress: ProgressReport, expected_bytes: int
) -> str | None:
    """Quantise with the program; returns why that cannot be trusted, None when it is done."""
    try:
        python = toolbox.python("quantize")
        if (flaw := _probe(python, made.parent)) is not None:
            return flaw
        request = _request(gguf, made, outtype, expected_bytes)
        call(python, script("by_program"), request, lambda said: _tell(progress, said))
        before = _contents(gguf)
        try:
            after = read_contents(made)
        except UnknownType:
            return f"for {outtype} of this model it writes a type that only its own llama.cpp reads"
        except (Unreadable, OSError) as exc:
            return f"its result cannot be used: {exc}"
        return _flaw(before, after, outtype)
    except (ToolError, ConversionError) as exc:
        return str(exc)


def by_library(
    gguf: Path, outtype: str, made: Path, toolbox: Toolbox, progress: ProgressReport, expected_bytes: int
) -> None:
    """Quantise with libgguf. Raises ConversionError or ToolError."""
    python = toolbox.python("quantize-rows")
    try:
        request = _request(gguf, made, outtype, expected_bytes)
        call(python, script("by_library"), request, lambda said: _tell(progress, said))
    except ToolError as exc:
        raise ConversionError(f"quantising to {outtype} failed: {exc}") from exc
    if (flaw := _flaw(_contents(gguf), _contents(made), outtype)) is not None:
        raise ConversionError(f"quantising to {outtype} failed: {flaw}")


def _request(gguf: Path, made: Path, outtype: str, expected_bytes: int) -> dict[str, Any]:
    return {
        "source": str(gguf),
        "out": str(made),
        "outtype": outtype,
        "threads": os.cpu_count() or 1,
        "expected_bytes": expected_bytes,
    }


def _tell(progress: ProgressReport, said: Mapping[str, Any]) -> None:
    if "done" in said:
        progress.bytes(min(int(said["done"]), int(said["total"])), int(said["total"]))


def _contents(gguf: Path) -> GgufContents:
    try:
        return read_contents(gguf)
    except Unreadable as exc:
        raise ConversionError(f"'{gguf.name}' is not a whole GGUF file: {exc}") from exc
    except OSError as exc:
        raise ConversionError(f"'{gguf}' cannot be read: {exc.strerror or exc}") from exc


def _flaw(before: GgufContents, after: GgufContents, outtype: str) -> str | None:
    """What is wrong with a file that was made of another; None for nothing that can be seen."""
    if {name: each.shape for name, each in before.tensors.items()} != {
        name: each.shape for name, each in after.tensors.items()
    }:
        return "its result has other tensors than the file that it was made from"
    lost = [name for name in before.metadata if name not in after.metadata]
    if lost:
        return f"its result lost {lost[0]}"
    kinds = {each.type for each in after.tensors.values() if len(each.shape) > 1}
    # A mixture may hold none of the type that it is named after, where rows cannot be divided into its blocks.
    if kinds <= _UNQUANTIZED:
        return f"its result holds nothing of {outtype}"
    return None


def _about(contents: GgufContents, outtype: str) -> int:
    bits = OUTTYPES.get(outtype, (8.5, 8.5))
    return int(sum(each.parameters * bits[each.shape[0] % 256 != 0] for each in contents.tensors.values()) / 8)


def _probe(python: Path, folder: Path) -> str | None:
    """Quantise a tiny model to Q8_0 and look at its numbers; returns what is wrong with them."""
    source, made = folder / "probe.gguf", folder / "probed.gguf"
    numbers = [((place * 37) % 201 - 100) / 100 for place in range(_ROW * _ROWS)]
    source.write_bytes(_tiny_model(numbers))
    try:
        call(python, script("by_program"), _request(source, made, "q8_0", 1), lambda said: _tell(Unseen(), said))
        contents = _contents(made)
        tensor = contents.tensors.get("blk.0.ffn_up.weight")
        if tensor is None or tensor.type != "Q8_0":
            return "it did not quantise a tiny model"
        # The model's matrices are all the same, and a tensor's data are what the file ends with.
        last = made.read_bytes()[-tensor.size_bytes :]
        far = max(abs(want - have) for want, have in zip(numbers, _from_q8_0(last), strict=True))
        return None if far < _LOST else f"it is off by {far:.2f} in a tiny model"
    finally:
        source.unlink(missing_ok=True)
        made.unlink(missing_ok=True)


def _from_q8_0(data: bytes) -> list[float]:
    """The numbers of Q8_0: blocks with a scale in 16 bits and 32 numbers of 8."""
    numbers: list[float] = []
    for scale, *values in struct.iter_unpack("<e32b", data):
        numbers += [scale * value for value in values]
    return numbers


def _tiny_model(numbers: list[float]) -> bytes:
    """A GGUF file of a llama with one block, whose matrices are all `numbers` in 32 bits."""
    head = {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": _ROW,
        "feed_forward_length": _ROWS,
        "attention.head_count": 4,
    }
    names = ["token_embd", "output", *(f"blk.0.{name}" for name in ("attn_q", "attn_k", "attn_v", "attn_output"))]
    names += [f"blk.0.{name}" for name in ("ffn_gate", "ffn_down", "ffn_up")]

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    pairs += [text(f"llama.{name}") + struct.pack("<II", 4, value) for name, value in head.items()]
    pairs.append(text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5))
    size = 4 * len(numbers)
    infos = [
        text(f"{name}.weight") + struct.pack("<IQQIQ", 2, _ROW, _ROWS, 0, size * place)
        for place, name in enumerate(names)
    ]
    start = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)
    padding = bytes(-len(start) % 32)
    return start + padding + struct.pack(f"<{len(numbers)}f", *numbers) * len(names)
