"""What a folder holds, and the sentence for each that cannot be converted."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from app.conversion.errors import FolderProblem
from app.conversion.model_folder import read_model_folder

CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 512}


def safetensors(tensors: Mapping[str, tuple[int, ...]]) -> bytes:
    """A file with these tensors, all zero, in bf16."""
    header, at = {}, 0
    for name, shape in tensors.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all that a model needs."""
    model = tmp_path / "law"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    (model / "model.safetensors").write_bytes(safetensors({"a": (4, 8), "b": (8,)}))
    (model / "tokenizer.json").write_text("{}")
    return model


def test_a_whole_folder_says_what_it_holds(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')

    model = read_model_folder(folder)

    assert (model.architecture, model.dtype, model.context_length) == ("LlamaForCausalLM", "BF16", 512)
    assert (model.parameters, model.weights_bytes, model.largest_parameters) == (40, 80, 32)
    assert (model.is_adapter, model.base, model.tokenizer_files) == (False, None, ("tokenizer.json",))
    assert model.chat_template == "{{ messages }}"
    assert model.generation == {"eos_token_id": [2, 3]}


def test_parts_are_read_as_one_model(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for number, name in enumerate("ab", 1):
        (folder / f"model-0000{number}-of-00002.safetensors").write_bytes(safetensors({name: (2, 2)}))

    assert set(read_model_folder(folder).tensors) == {"a", "b"}


def test_the_default_of_several_templates_is_the_models_template(folder: Path) -> None:
    templates = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))

    assert read_model_folder(folder).chat_template == "plain"


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "qwen", "r": 8}')
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors({"a.lora_A.weight": (2, 2)}))

    adapter = read_model_folder(tmp_path)

    assert (adapter.is_adapter, adapter.base) == (True, "qwen")


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _shard_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def _part_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00003.safetensors")


def _cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-7])


def _gptq(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": {"quant_method": "gptq"}}))


def _gguf(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "law.gguf").write_bytes(b"GGUF")


def _gguf_with_config(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "law.gguf")


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _checkpoints(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "checkpoint-20").mkdir()
    (folder / "checkpoint-20" / "config.json").write_text("{}")


def _mistral(folder: Path) -> None:
    (folder / "config.json").rename(folder / "params.json")


def _adapter_without_weights(folder: Path) -> None:
    _empty(folder)
    (folder / "adapter_config.json").write_text("{}")


FLAWS: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "a pickle": (_pickle, "has its weights as a pickle (pytorch_model.bin): loading one runs the code that is in it"),
    "a part that the index names": (
        _shard_missing,
        "does not have model-00002-of-00002.safetensors, which its index names",
    ),
    "parts without an index": (_part_missing, "has 1 of 3 parts of its weights"),
    "a file that was cut": (_cut, "model.safetensors is cut off"),
    "GPTQ": (_gptq, "is quantised already (gptq)"),
    "a GGUF": (_gguf, "holds law.gguf and no config.json: it is a GGUF model already"),
    "a GGUF and a config.json": (_gguf_with_config, "holds no safetensors, only law.gguf"),
    "nothing": (_empty, "is empty"),
    "checkpoints": (_checkpoints, "has no config.json, so it is no model's folder; '"),
    "Mistral's layout": (_mistral, "is in Mistral's own layout"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
    "half a tokenizer": (
        lambda folder: (folder / "tokenizer.json").rename(folder / "vocab.json"),
        "has no tokenizer",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    "another name": (
        lambda folder: (folder / "model.safetensors").rename(folder / "weights.safetensors"),
        "no index that names weights.safetensors",
    ),
    "config.json is not JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
    "config.json is a list": (lambda folder: (folder / "config.json").write_text("[]"), "is not a JSON object"),
    "an adapter without weights": (_adapter_without_weights, "is an adapter without weights"),
    "a template that is not text": (
        lambda folder: (folder / "chat_template.jinja").write_bytes(b"\xff"),
        "chat_template.jinja cannot be read",
    ),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_what_is_wrong_is_said_in_one_sentence(folder: Path, flaw: str) -> None:
    spoil, sentence = FLAWS[flaw]
    spoil(folder)

    with pytest.raises(FolderProblem) as caught:
        read_model_folder(folder)

    assert sentence in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_a_file_and_one_that_cannot_be_read(folder: Path) -> None:
    loop = folder / "loop"
    loop.symlink_to(loop)
    expected = {
        folder / "gone": "is not there",
        folder / "config.json": "is a file, not a folder",
        loop: "cannot be read: Too many levels of symbolic links",
    }

    for path, sentence in expected.items():
        with pytest.raises(FolderProblem, match=sentence):
            read_model_folder(path)


def test_a_gguf_file_is_converted_already(tmp_path: Path) -> None:
    (tmp_path / "law.gguf").write_bytes(b"GGUF")

    with pytest.raises(FolderProblem, match="is a GGUF file, so it is converted already"):
        read_model_folder(tmp_path / "law.gguf")
