from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.model_files.safetensors import BadFile, read_header
from backends.model_files.values import PIECE_BYTES, Values, look
from tests.rigs.safetensors_file import Weights, as_bytes, write

CODES = {"F16": "e", "F32": "f", "F64": "d"}


def values_of(tmp: Path, dtype: str, data: bytes, width: int) -> Values:
    file = write(
        tmp / "x.safetensors",
        {"before": Weights("U8", (3,), b"\xff" * 3), "a": Weights(dtype, (len(data) // width,), data)},
    )
    return look(file, read_header(file).tensors["a"])


@pytest.mark.parametrize("dtype", CODES)
@given(data=st.data())
def test_numbers_are_called_what_python_calls_them(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, data: st.DataObject
) -> None:
    size = struct.calcsize(CODES[dtype])
    numbers = data.draw(st.lists(st.floats(width=8 * size), max_size=6))  # type: ignore[arg-type]

    seen = values_of(tmp_path_factory.mktemp("v"), dtype, struct.pack(f"<{len(numbers)}{CODES[dtype]}", *numbers), size)

    assert seen == Values(all(map(math.isfinite, numbers)), not any(numbers))


@given(st.lists(st.integers(0, 0xFFFF), max_size=6))
@example([0x7F7F, 0xFF7F])  # the largest that are finite
@example([0x007F, 0x80FF])
@example([0x7F80])
@example([0xFFC0])
@example([0x8000])
def test_bfloat16_is_the_upper_half_of_a_float(tmp_path_factory: pytest.TempPathFactory, halves: list[int]) -> None:
    numbers = [struct.unpack("<f", struct.pack("<HH", 0, half))[0] for half in halves]

    seen = values_of(tmp_path_factory.mktemp("v"), "BF16", struct.pack(f"<{len(halves)}H", *halves), 2)

    assert seen == Values(all(map(math.isfinite, numbers)), not any(numbers))


@pytest.mark.parametrize(
    ("dtype", "byte", "is_finite"),
    [
        ("F8_E4M3", 0x7E, True),
        ("F8_E4M3", 0xFF, False),
        ("F8_E5M2", 0x7B, True),
        ("F8_E5M2", 0xFC, False),
        ("I8", 0xFF, True),
    ],
)
def test_types_of_one_byte_have_their_own_rules(tmp_path: Path, dtype: str, byte: int, is_finite: bool) -> None:
    assert values_of(tmp_path, dtype, bytes([0, byte]), 1) == Values(is_finite, is_zero=False)


@pytest.mark.parametrize("place", [0, PIECE_BYTES // 4 - 1, PIECE_BYTES // 4, PIECE_BYTES // 2])
def test_one_nan_is_seen_wherever_it_stands(tmp_path: Path, place: int) -> None:
    data = bytearray(2 * PIECE_BYTES + 4)
    data[4 * place : 4 * place + 4] = struct.pack("<f", math.nan)

    assert values_of(tmp_path, "F32", bytes(data), 4) == Values(is_finite=False, is_zero=False)


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "x.safetensors", {"a": Weights("F32", (2,), b"\0" * 8)})
    tensor = read_header(file).tensors["a"]
    file.write_bytes(as_bytes({}))

    with pytest.raises(BadFile, match="has become shorter"):
        look(file, tensor)

    file.unlink()
    with pytest.raises(BadFile, match="cannot be read: No such file"):
        look(file, tensor)
