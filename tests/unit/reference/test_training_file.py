"""app/reference/training_file.py: what files of LLaMA-Factory say of prompts, however they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.reference.training_file import BadTraining, Training, read_training, training_in

WHOLE = """### model
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
adapter_name_or_path: [a, b]
stage: sft
template: qwen3
default_system: "Be kind."
tool_format: glm4
enable_thinking: no
preserve_thinking: true
cutoff_len: 1024
add_special_tokens: <a>, <b>
some_key_of_tomorrow: {deep: [1, 2]}
output_dir: saves/llama3/lora/sft
"""


def written(folder: Path, text: str | bytes, name: str = "train.yaml") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_everything_that_concerns_prompts_is_read(tmp_path: Path) -> None:
    assert read_training(written(tmp_path, WHOLE)) == Training(
        template="qwen3",
        default_system="Be kind.",
        tool_format="glm4",
        enable_thinking=False,
        preserve_thinking=True,
        cutoff_len=1024,
        added_tokens=("<a>", "<b>"),
        outputs=("saves/llama3/lora/sft",),
    )


@pytest.mark.parametrize(
    "data",
    [
        WHOLE.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + WHOLE.encode(),
        WHOLE.replace('"Be kind."', "Be kind.").encode(),
    ],
    ids=["Windows line ends", "byte order mark", "no quotes"],
)
def test_how_an_editor_saved_it_does_not_matter(tmp_path: Path, data: bytes) -> None:
    assert read_training(written(tmp_path, data)) == read_training(written(tmp_path, WHOLE, "plain.yaml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stage: sft\n", Training()),
        ("template: null\n", Training()),
        ("template:\n", Training()),
        ('template: qwen\ndefault_system: ""\n', Training("qwen", "")),
        ("template: qwen\ndefault_system: null\n", Training("qwen")),
        ("template: qwen\nenable_thinking: null\n", Training("qwen", enable_thinking=None)),
        ("template: qwen\nenable_thinking: 'False'\n", Training("qwen", enable_thinking=False)),
        ("template: qwen\nadd_special_tokens: [<a>]\n", Training("qwen", added_tokens=("<a>",))),
        ("top.template: qwen\ntrain.cutoff_len: 512\n", Training("qwen", cutoff_len=512)),
    ],
)
def test_what_is_not_said_has_the_default(tmp_path: Path, text: str, expected: Training) -> None:
    assert read_training(written(tmp_path, text)) == expected


def test_json_is_read_as_well(tmp_path: Path) -> None:
    assert read_training(written(tmp_path, '{"template": "qwen", "cutoff_len": 9}', "a.json")).cutoff_len == 9


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"template: [a, b]\n", "`template` is ['a', 'b'], not a text"),
        (b"template: a\nenable_thinking: 3\n", "`enable_thinking` is 3, not true or false"),
        (b"- a\n", "holds no settings of a training, but something else"),
        (b"a: [\n", "cannot be read"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"a" * (1 << 21), "has more than 1 MiB; no training file has"),
    ],
)
def test_what_is_no_training_file_is_refused_in_a_sentence(tmp_path: Path, data: bytes, sentence: str) -> None:
    file = written(tmp_path, data)

    with pytest.raises(BadTraining) as caught:
        read_training(file)

    assert sentence in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTraining, match="No such file"):
        read_training(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "text", ["template: qwen\n", "stage: sft\n", "- a\n", "a: [\n", "models: {a: b}\n"], ids=lambda text: text.strip()
)
def test_a_file_beside_the_model_that_tells_something_else_is_passed_over(tmp_path: Path, text: str) -> None:
    assert training_in(written(tmp_path, text)) is None
