"""app/reference/tokenizer.py: what files of tokenizers say, in the ways that they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.reference.tokenizer import BadTokenizer, read_tokenizer


def folder(path: Path, config: Any = None, **files: Any) -> Path:
    for name, value in {"tokenizer_config": config or {}, **files}.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


def test_tokens_are_texts_or_objects_in_either_file(tmp_path: Path) -> None:
    config = {"eos_token": {"content": "</s>", "lstrip": False}, "bos_token": "<s>", "pad_token": None}
    model = folder(tmp_path, config, special_tokens_map={"pad_token": {"content": "<p>"}, "bos_token": "old"})

    assert read_tokenizer(model).tokens == {"eos_token": "</s>", "bos_token": "<s>", "pad_token": "<p>"}


@pytest.mark.parametrize(
    ("config", "files", "expected"),
    [
        ({"chat_template": "A"}, {}, {"default": "A"}),
        ({}, {"chat_template.jinja": "B"}, {"default": "B"}),
        ({"chat_template": "A"}, {"chat_template.jinja": "B"}, {"default": "B"}),
        (
            {"chat_template": [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "T"}]},
            {},
            {"default": "A", "tool_use": "T"},
        ),
        (
            {},
            {"chat_template.jinja": "B", "additional_chat_templates/tool_use.jinja": "T"},
            {"default": "B", "tool_use": "T"},
        ),
        ({}, {"chat_template.json": '{"chat_template": "J"}'}, {"default": "J"}),
        ({}, {}, {}),
    ],
)
def test_chat_templates_are_found_wherever_they_are_kept(
    tmp_path: Path, config: Any, files: dict[str, str], expected: dict[str, str]
) -> None:
    model = folder(tmp_path, config)
    for name, text in files.items():
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text(text)

    assert read_tokenizer(model).chat_templates == expected


PUTS_FIRST = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}


@pytest.mark.parametrize(
    ("config", "processor", "expected"),
    [
        ({"add_bos_token": True}, None, True),
        ({"add_bos_token": False}, PUTS_FIRST, False),
        ({}, PUTS_FIRST, True),
        ({}, {"type": "Sequence", "processors": [{"type": "ByteLevel"}, PUTS_FIRST]}, True),
        ({}, {"type": "ByteLevel"}, False),
        ({}, None, False),
    ],
)
def test_whether_a_first_token_is_added(tmp_path: Path, config: Any, processor: Any, expected: bool) -> None:
    model = folder(tmp_path, {"bos_token": "<s>", **config}, tokenizer={"post_processor": processor})

    assert read_tokenizer(model).adds_bos is expected


def test_a_tokenizer_without_a_first_token_adds_none(tmp_path: Path) -> None:
    assert read_tokenizer(folder(tmp_path, {"add_bos_token": True})).adds_bos is False


def test_the_numbers_of_tokens_are_read_from_all_three_places(tmp_path: Path) -> None:
    table = {"model": {"vocab": {"a": 1, "b": 2}}, "added_tokens": [{"id": 9, "content": "<x>"}]}
    config = {"added_tokens_decoder": {"8": {"content": "<y>"}}}

    assert read_tokenizer(folder(tmp_path, config, tokenizer=table)).ids == {"a": 1, "b": 2, "<y>": 8, "<x>": 9}


@pytest.mark.parametrize(
    ("data", "sentence"), [(b"{", "is not JSON"), (b"[]", "holds no JSON object"), (b"\xff", "is not UTF-8 text")]
)
def test_a_broken_file_is_named_in_a_sentence(tmp_path: Path, data: bytes, sentence: str) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(data)

    with pytest.raises(BadTokenizer, match=rf"tokenizer_config.json {sentence}"):
        read_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTokenizer, match=r"has no tokenizer_config.json"):
        read_tokenizer(tmp_path)
