"""How large a result becomes, which type is meant, and whether there is room."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.conversion.errors import ConversionError
from app.conversion.model_folder import ModelFolder
from app.conversion.room import between, check_disk, check_memory, disk_needed, expected_bytes, outtype_of
from backends.model_files.safetensors import Tensor


def model(dtype: str = "BF16", rows: int = 100_000, width: int = 1024) -> ModelFolder:
    """A model of one matrix and one norm."""
    matrix = Tensor(dtype, (rows, width), 0, rows * width * 2)
    tensors = {"a": matrix, "norm": Tensor(dtype, (width,), 0, width * 2)}
    return ModelFolder(Path("law"), False, {}, (), tensors, (), {}, {}, None)


@pytest.mark.parametrize(
    ("dtype", "asked", "meant"),
    [("BF16", "auto", "bf16"), ("F16", "auto", "f16"), ("F32", "auto", "f16"), ("BF16", "Q4_K_M", "q4_k_m")],
)
def test_a_type_is_what_is_meant(dtype: str, asked: str, meant: str) -> None:
    assert outtype_of(model(dtype), asked) == meant


def test_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(ConversionError, match=r"'q4km' is not a type of weights here: did you mean q4_k_m\?"):
        outtype_of(model(), "q4km")


@pytest.mark.parametrize(
    ("dtype", "outtype", "middle"),
    [("BF16", "q8_0", None), ("BF16", "q4_k_m", "bf16"), ("F16", "q6_k", "f16"), ("F32", "q2_k", "f32")],
)
def test_what_is_quantised_in_a_second_step_loses_nothing_in_the_first(
    dtype: str, outtype: str, middle: str | None
) -> None:
    assert between(model(dtype), outtype) == middle


def test_rows_that_cannot_be_divided_take_more() -> None:
    wide, narrow = (expected_bytes(model(width=width), "q4_k_m") / width for width in (1024, 1056))

    assert narrow > wide * 1.005
    assert disk_needed(model(), "q4_k_m") > expected_bytes(model(), "q4_k_m") + expected_bytes(model(), "bf16")
    assert disk_needed(model(), "bf16") < 2 * expected_bytes(model(), "bf16")


def test_a_lack_of_room_is_told_with_both_figures() -> None:
    with pytest.raises(ConversionError, match=r"needs 2\.00 GB on the disk of '/models', which has 1\.50 GB free"):
        check_disk("the conversion", "/models", 2_000_000_000, 1_500_000_000)
    with pytest.raises(ConversionError, match=r"needs 2\.0 GB of memory, and 1\.5 GB are free"):
        check_memory("the conversion", 2_000_000_000, 1.5)


def test_room_that_is_there_or_not_known_stops_nothing() -> None:
    check_disk("the conversion", "/models", 5, 5)
    check_memory("the conversion", 5, None)

    assert disk_needed(model(), "q8_0") > 0
