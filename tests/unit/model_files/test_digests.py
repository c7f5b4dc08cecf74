"""One digest of files, wherever it is asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from app.conversion.digest import digests, of_weights
from app.conversion.model_folder import ModelFolder
from backends.model_files import digests as of_files
from backends.model_files.digests import file_digest, list_digest, role_digest, stamped_digest, value_digest
from backends.model_files.digests import weights_digest as digest_of
from backends.model_files.sources import file_stamp, in_folder

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def folder(path: Path, *names: str) -> ModelFolder:
    path.mkdir()
    for name in names:
        (path / name).write_bytes(name.encode())
    weights = tuple(path / name for name in names)
    return ModelFolder(path, False, {}, weights, {}, ("tokenizer.json",), {}, {}, None)


def test_of_a_file_it_is_what_sha256sum_prints_and_progress_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    monkeypatch.setattr(of_files, "BLOCK_BYTES", 2)
    told: list[int] = []

    assert file_digest(tmp_path / "a", told.append) == ABC
    assert told == [2, 1]
    assert stamped_digest(file_stamp(tmp_path / "a")) == ABC
    with pytest.raises(InterruptedError):
        stamped_digest(file_stamp(tmp_path / "a"), lambda: True)


@pytest.mark.parametrize("names", [("model.safetensors",), ("b.safetensors", "a.safetensors")])
def test_a_models_weights_have_one_digest_whoever_asks(tmp_path: Path, names: tuple[str, ...]) -> None:
    model = folder(tmp_path / "model", *names)
    files = in_folder(model.folder)

    of_serving = role_digest("weights", files, {file.stamp: stamped_digest(file.stamp) for file in files})

    assert digest_of(model.weights) == of_serving == of_weights(model, digests(model))
    assert (digest_of(model.weights) == hashlib.sha256(names[0].encode()).hexdigest()) == (len(names) == 1)


def test_of_nothing_there_is_none_and_what_is_gone_is_said(tmp_path: Path) -> None:
    assert digest_of(()) is None
    assert list_digest(()) is None
    with pytest.raises(FileNotFoundError):
        digest_of([tmp_path / "gone.safetensors"])


def test_values_have_one_digest_in_any_order_of_their_keys() -> None:
    assert value_digest({"a": 1, "b": [2]}) == value_digest({"b": [2], "a": 1})
    assert value_digest(["a", "b"]) != value_digest(["ab"])
    assert len(value_digest("\ud800")) == 64  # a name of a file that is no text
