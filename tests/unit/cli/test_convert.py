"""`modelport convert`, as far as it needs no tool environment: whatever is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli.convert import change_in_words
from app.cli.options import sentence
from app.conversion.convert import about_place
from tests.rigs.cli import run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all that a model needs but for its weights."""
    model = tmp_path / "law"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (model / "tokenizer.json").write_text("{}")
    return model


def test_a_pickle_is_refused_with_the_reason_and_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"PK")

    ended = run(tmp_path, "convert", "law", "--outtype", "q8_0")

    assert ended.code == 1
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert "has its weights as a pickle (pytorch_model.bin): loading one runs the code that is in it" in line
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix == ".gguf") == []


def test_a_base_is_for_adapters_only_and_a_template_must_be_a_file(folder: Path, tmp_path: Path) -> None:
    from tests.unit.conversion.test_model_folder import safetensors

    (folder / "model.safetensors").write_bytes(safetensors({"a": (4, 8)}))

    based = run(tmp_path, "convert", "law", "--base", "law")
    templated = run(tmp_path, "convert", "law", "--chat-template", "gone.jinja")
    typed = run(tmp_path, "convert", "law", "--quant", "q4")
    placed = run(tmp_path, "convert", "law", "--out", "gone/law.gguf")

    assert "is a model, not an adapter (LoRA): it has no base" in based.err
    assert "The chat template 'gone.jinja' cannot be read: No such file or directory" in templated.err
    assert "'q4' is not a type of weights here" in typed.err
    assert "is not a folder here: make it, or name another place with --out" in placed.err
    assert {each.code for each in (based, templated, typed, placed)} == {1}


def test_an_adapter_whose_base_is_elsewhere_asks_for_it(tmp_path: Path) -> None:
    from tests.unit.conversion.test_model_folder import safetensors

    adapter = tmp_path / "sft"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/gone/qwen", "r": 8}))
    (adapter / "adapter_model.safetensors").write_bytes(safetensors({"a.lora_A.weight": (2, 2)}))

    ended = run(tmp_path, "convert", "sft")

    assert ended.code == 1
    assert "was trained on '/gone/qwen', which is not on this machine: name the base's folder with --base" in ended.err


@pytest.mark.parametrize(
    ("size", "source", "words"), [(50, 100, "50 % less"), (101, 100, "1 % more"), (1001, 1000, "about the same")]
)
def test_a_file_that_is_not_smaller_is_not_called_so(size: int, source: int, words: str) -> None:
    assert change_in_words(size, source) == words


def test_a_sentence_has_one_full_stop() -> None:
    assert sentence(ValueError("it is so")) == "it is so."
    assert sentence(ValueError("It is so.")) == "It is so."


def test_a_file_inside_the_models_folder_is_told_whatever_its_ending(tmp_path: Path) -> None:
    (tmp_path / "law").mkdir()

    (remark,) = about_place(tmp_path / "law" / "in.bin", tmp_path / "law")

    assert "where Ollama's `FROM .` takes the safetensors and not this file: write `FROM ./in.bin`" in remark
    assert about_place(tmp_path / "law.gguf", tmp_path / "law") == ()
