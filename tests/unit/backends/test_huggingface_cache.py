"""Which files of a repository an engine needs, how much of them is here, and what is remembered of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backends.huggingface.cache import (
    File,
    Pin,
    have_bytes,
    in_words,
    is_harmless,
    is_here,
    is_whole,
    needed,
    remember,
    remembered,
    snapshot,
)

COMMIT = "0123456789" * 4

REPOSITORIES = {
    "safetensors before .bin": (
        ["config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json"],
        ["config.json", "model.safetensors", "tokenizer.json"],
    ),
    "the index goes with its weights": (
        ["model-1.safetensors", "model.safetensors.index.json", "pytorch_model-1.bin", "pytorch_model.bin.index.json"],
        ["model-1.safetensors", "model.safetensors.index.json"],
    ),
    ".bin where there is nothing else": (
        ["config.json", "pytorch_model.bin", "training_args.bin", "optimizer.pt"],
        ["config.json", "pytorch_model.bin"],
    ),
    "no second copy in original/": (
        ["config.json", "model.safetensors", "original/consolidated.00.pth", "original/params.json"],
        ["config.json", "model.safetensors"],
    ),
    "other engines' formats": (
        ["config.json", "model.safetensors", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx", "m.gguf"],
        ["config.json", "model.safetensors"],
    ),
    "nothing for people": (
        ["config.json", "model.safetensors", ".gitattributes", "logo.png"],
        ["config.json", "model.safetensors"],
    ),
    "what belongs to an embedding model": (
        ["1_Pooling/config.json", "2_Dense/pytorch_model.bin", "config.json", "model.safetensors", "modules.json"],
        ["1_Pooling/config.json", "2_Dense/pytorch_model.bin", "config.json", "model.safetensors", "modules.json"],
    ),
    "code, templates and tokenizers": (
        ["modeling_x.py", "chat_template.jinja", "tokenizer.model", "qwen.tiktoken", "merges.txt"],
        ["modeling_x.py", "chat_template.jinja", "tokenizer.model", "qwen.tiktoken", "merges.txt"],
    ),
}


@pytest.mark.parametrize(("paths", "wanted"), REPOSITORIES.values(), ids=REPOSITORIES.keys())
def test_only_what_an_engine_reads_is_needed(paths: list[str], wanted: list[str]) -> None:
    assert needed(paths) == wanted


def test_sizes_are_written_for_people() -> None:
    assert [in_words(size) for size in (16_060_000_000, 856_984, 2_500_000)] == ["16.1 GB", "857.0 kB", "2.5 MB"]


def test_what_is_here_of_a_file_is_counted_wherever_it_lies(tmp_path: Path) -> None:
    blobs, commit = tmp_path / "blobs", tmp_path / "snapshots" / COMMIT
    blobs.mkdir()
    commit.mkdir(parents=True)
    file = File("model.safetensors", 100_000, "f" * 64, "f" * 64)

    def here() -> int:
        return have_bytes(tmp_path, COMMIT, file, since=0.0)

    assert here() == 0
    (blobs / f"{'f' * 64}.12345678.incomplete").write_bytes(b"x" * 8192)
    assert here() == 8192
    (blobs / f"{'f' * 64}.modelport.incomplete").write_bytes(b"x" * 700)
    assert here() == 700
    (blobs / ("f" * 64)).write_bytes(b"x" * 100_000)
    assert here() == 100_000
    (blobs / ("f" * 64)).rename(commit / "model.safetensors")
    assert here() == 100_000


def test_what_a_killed_process_left_behind_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / f"{'f' * 64}.12345678.incomplete").write_bytes(b"x" * 8192)

    assert have_bytes(tmp_path, COMMIT, File("m", 100_000, "f" * 64, "f" * 64), since=4e9) == 0


def test_a_model_is_whole_when_every_file_that_its_index_names_is_there(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    names = ["config.json", "model.safetensors.index.json", "model-1.safetensors"]

    assert not is_whole(tmp_path, names)
    assert is_whole(tmp_path, [*names, "model-2.safetensors"])
    assert not is_whole(tmp_path, ["model-1.safetensors"])
    assert not is_whole(tmp_path, ["config.json"])


def test_a_pin_is_remembered_for_one_revision_of_one_model(tmp_path: Path) -> None:
    pin = Pin("org/m", "main", COMMIT, {"config.json": 2})

    remember(pin, tmp_path / "hub/pin.json")

    assert remembered(tmp_path / "hub/pin.json", "org/m", "main") == pin
    assert remembered(tmp_path / "hub/pin.json", "org/m", None) is None
    assert remembered(tmp_path / "hub/other.json", "org/m", "main") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model": "org/m", "revision": null, "commit": "../..", "files": {}}']
)
def test_a_pin_that_is_not_valid_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "pin.json").write_text(text)

    assert remembered(tmp_path / "pin.json", "org/m", None) is None


def test_a_model_is_here_with_every_file_in_its_whole_length(tmp_path: Path) -> None:
    pin = Pin("org/m", None, COMMIT, {"config.json": 2, "model.safetensors": 4})
    folder = snapshot(tmp_path, pin)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")

    assert not is_here(tmp_path, pin)
    (folder / "model.safetensors").write_text("123")
    assert not is_here(tmp_path, pin)
    (folder / "model.safetensors").write_text("1234")
    assert is_here(tmp_path, pin)


def test_a_part_that_vanishes_while_it_is_looked_at_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/abc.1.incomplete").symlink_to("gone")  # listed, and not there

    assert have_bytes(tmp_path, COMMIT, File("model.safetensors", 5, "abc", "abc"), 0.0) == 0


@pytest.mark.parametrize("path", ["/etc/victim", "../victim", "a/./b", "a//b", "", "a\0b"])
def test_a_name_within_a_model_has_nothing_but_names(path: str) -> None:
    assert not is_harmless(File(path, 1, "a" * 40, None))
    assert is_harmless(File("original/..config.json", 1, "a" * 40, None))
    assert not is_harmless(File("config.json", 1, "", ""))
