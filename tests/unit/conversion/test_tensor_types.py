"""Which tensor gets which type: llama.cpp's rules."""

from __future__ import annotations

import pytest

from app.conversion.children.tensor_types import TensorTypes, deserves_more, fitting, place_in_order


def types(outtype: str, layers: int = 16, width: int = 1024, **more: bool | int | str) -> dict[str, str | None]:
    """The types of a llama's tensors."""
    settings = {"architecture": "llama", "heads_per_group": 4, "experts": 0, "has_output": False, **more}
    rules = TensorTypes(outtype, layers=layers, values=layers, **settings)  # type: ignore[arg-type]
    names = ["token_embd.weight", "output_norm.weight"]
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down", "attn_norm")
    names += [f"blk.{layer}.{part}.weight" for layer in range(layers) for part in parts]
    return {
        name: rules.type_of(name, (width,) if name.endswith("_norm.weight") else (width, 8))
        for name in sorted(names, key=place_in_order)
    }


def test_norms_are_kept_and_shared_embeddings_have_six_bits() -> None:
    chosen = types("q4_k_m")

    assert chosen["output_norm.weight"] is None
    assert chosen["blk.0.attn_norm.weight"] is None
    assert chosen["token_embd.weight"] == "Q6_K"
    assert types("q4_k_m", has_output=True)["token_embd.weight"] == "Q4_K"


def test_half_of_the_values_and_of_what_leads_down_keep_more_in_q4_k_m() -> None:
    chosen = types("q4_k_m")

    for part in ("attn_v", "ffn_down"):
        more = [layer for layer in range(16) if chosen[f"blk.{layer}.{part}.weight"] == "Q6_K"]
        assert more == [layer for layer in range(16) if deserves_more(layer, 16)] == [0, 1, 4, 7, 10, 13, 14, 15]
    assert chosen["blk.0.attn_q.weight"] == "Q4_K"


@pytest.mark.parametrize(
    ("outtype", "name", "kind"),
    [
        ("q2_k", "attn_v", "Q4_K"),
        ("q2_k", "ffn_down", "Q3_K"),
        ("q2_k", "attn_output", "Q3_K"),
        ("q3_k_m", "attn_v", "Q5_K"),
        ("q3_k_m", "attn_output", "Q4_K"),
        ("q3_k_l", "ffn_down", "Q5_K"),
        ("q3_k_s", "ffn_down", "Q3_K"),
        ("q4_k_s", "ffn_down", "Q5_K"),
        ("q5_k_m", "attn_v", "Q6_K"),
        ("q6_k", "ffn_down", "Q6_K"),
        ("q8_0", "attn_v", "Q8_0"),
        ("iq4_xs", "ffn_down", "Q5_K"),
        ("q4_0", "ffn_down", "Q4_0"),
    ],
)
def test_the_first_block_has_the_type_of_its_mixture(outtype: str, name: str, kind: str) -> None:
    assert types(outtype)[f"blk.0.{name}.weight"] == kind


@pytest.mark.parametrize(
    ("wanted", "row", "kind"),
    [("Q4_K", 512, "Q4_K"), ("Q4_K", 576, "Q5_0"), ("Q6_K", 576, "Q8_0"), ("Q2_K", 576, "IQ4_NL"), ("Q8_0", 33, "F16")],
)
def test_rows_that_cannot_be_divided_get_a_type_that_fits(wanted: str, row: int, kind: str) -> None:
    assert fitting(wanted, row) == kind


def test_eight_experts_keep_their_attention() -> None:
    chosen = types("q4_k_m", experts=8)

    assert chosen["blk.3.attn_v.weight"] == chosen["blk.3.attn_k.weight"] == "Q8_0"
    assert chosen["blk.3.attn_output.weight"] == "Q5_K"
