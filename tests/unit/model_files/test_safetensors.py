from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.model_files.safetensors import BadFile, Tensor, read_header, read_headers, shards
from tests.rigs.safetensors_file import Weights, as_bytes, bf16, f32, write

TENSORS = {"a.weight": bf16((2, 3), 0.5), "b.weight": f32((4,), [1.0, 2.0]), "empty": Weights("F32", (0, 4), b"")}
WHOLE = as_bytes(TENSORS, {"format": "pt"})


def with_header(said: object, data: bytes = b"") -> bytes:
    header = said if isinstance(said, bytes) else json.dumps(said).encode()
    return struct.pack("<Q", len(header)) + header + data


def test_a_file_says_which_tensors_it_holds_and_where(tmp_path: Path) -> None:
    file = write(tmp_path / "model.safetensors", TENSORS, {"format": "pt"})

    header = read_header(file)

    start = len(WHOLE) - 28
    assert header.tensors == {
        "a.weight": Tensor("BF16", (2, 3), start, start + 12),
        "b.weight": Tensor("F32", (4,), start + 12, start + 28),
        "empty": Tensor("F32", (0, 4), start + 28, start + 28),
    }
    assert header.metadata == {"format": "pt"}
    assert header.size_bytes == len(WHOLE)
    assert header.tensors["a.weight"].parameters == 6


@given(length=st.integers(0, len(WHOLE) - 1))
def test_a_file_that_was_cut_anywhere_is_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    file = tmp_path_factory.mktemp("cut") / "model.safetensors"
    file.write_bytes(WHOLE[:length])

    with pytest.raises(BadFile, match=r"^model\.safetensors is (empty|cut off)[^\n]*$"):
        read_header(file)


@given(data=st.binary(max_size=200))
def test_other_bytes_are_refused_and_nothing_else_is_raised(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.mktemp("other") / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(data)) + data)

    try:
        tensors = read_header(file).tensors
    except BadFile as exc:
        refusal = str(exc)
    else:
        refusal = f"model.safetensors {dict(tensors) or 'has nothing'}"

    assert refusal.startswith("model.safetensors ")


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
FAULTS = {
    "an overlap": ({"a": ONE, "b": ONE}, b"\0" * 8, "is not where that before it ends"),
    "a hole": ({"a": {**ONE, "data_offsets": [4, 12]}}, b"\0" * 12, "is not where that before it ends"),
    "bytes too many": ({"a": ONE}, b"\0" * 9, "1 bytes at its end belong to no tensor"),
    "a shape of another size": ({"a": {**ONE, "shape": [3]}}, b"\0" * 8, "has 8 bytes for its tensor 'a'"),
    "an unknown type": ({"a": {**ONE, "dtype": "F12"}}, b"\0" * 8, "of the unknown type 'F12'"),
    "a type that is no name": ({"a": {**ONE, "dtype": []}}, b"\0" * 8, "of the unknown type"),
    "a negative size": ({"a": {**ONE, "shape": [-2]}}, b"\0" * 8, "nothing usable of its tensor 'a'"),
    "a size that is no number": ({"a": {**ONE, "shape": [True]}}, b"\0" * 8, "nothing usable"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, b"\0" * 8, "nothing usable of its tensor 'a'"),
    "three offsets": ({"a": {**ONE, "data_offsets": [0, 4, 8]}}, b"\0" * 8, "nothing usable"),
    "a list": ([], b"", "its header is not an object"),
    "metadata that is no object": ({"__metadata__": [1]}, b"", "its metadata is not an object"),
    "no JSON": (b"{", b"", "its header is not JSON"),
    "brackets without end": (b"[" * 100_000, b"", "its header is not JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_sound_is_named(tmp_path: Path, fault: str) -> None:
    said, data, sentence = FAULTS[fault]
    (tmp_path / "x.safetensors").write_bytes(with_header(said, data))

    with pytest.raises(BadFile, match=sentence):
        read_header(tmp_path / "x.safetensors")


def test_a_pickle_under_the_wrong_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"PK\x03\x04" + b"\x00\x00\x08\x08" + b"x" * 100)

    with pytest.raises(BadFile, match="is a pickle"):
        read_header(tmp_path / "x.safetensors")


def test_a_file_that_is_not_there_or_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"x\.safetensors is not there"):
        read_header(tmp_path / "x.safetensors")
    with pytest.raises(BadFile, match="cannot be read: Is a directory"):
        read_header(tmp_path)


def test_the_shards_of_a_folder_are_those_of_its_index(tmp_path: Path) -> None:
    assert shards(tmp_path) == ()
    write(tmp_path / "model.safetensors", {"old": bf16((1,), 1.0)})
    assert read_headers(tmp_path).keys() == {"old"}

    write(tmp_path / "model-00001-of-00002.safetensors", {"a": bf16((1,), 1.0)})
    write(tmp_path / "model-00002-of-00002.safetensors", {"b": bf16((1,), 1.0)})
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    assert read_headers(tmp_path).keys() == {"a", "b"}


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": 1}'])
def test_an_index_that_is_none_is_named(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)

    with pytest.raises(BadFile, match="is no index of safetensors files"):
        shards(tmp_path)
