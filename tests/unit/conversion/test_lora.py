"""Which tensors a LoRA adapter is added to, how much of it, and what is left to PEFT."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.conversion.errors import ConversionError
from app.conversion.lora import additions, rows_wanted, why_peft
from app.conversion.model_folder import ModelFolder
from backends.model_files.safetensors import Tensor

Q = "model.layers.0.self_attn.q_proj"
BASE = {f"{Q}.weight": (8, 16), "model.embed_tokens.weight": (32, 16)}
PLAIN = {f"base_model.model.{Q}.lora_A.weight": (2, 16), f"base_model.model.{Q}.lora_B.weight": (8, 2)}


def folder(shapes: Mapping[str, tuple[int, ...]], **config: Any) -> ModelFolder:
    """A folder with tensors of these shapes."""
    tensors = {name: Tensor("F32", shape, 0, 0) for name, shape in shapes.items()}
    return ModelFolder(Path("law"), "r" in config, config, (), tensors, (), {}, {}, None)


def adapter(shapes: Mapping[str, tuple[int, ...]] = PLAIN, **config: Any) -> ModelFolder:
    """An adapter, plain unless something else is said."""
    return folder(shapes, **{"peft_type": "LORA", "r": 2, "lora_alpha": 8, "init_lora_weights": True, **config})


def test_plain_lora_is_added_without_peft() -> None:
    assert why_peft(adapter(), folder(BASE)) is None
    ((name, addition),) = additions(adapter(), folder(BASE)).items()
    assert name == f"{Q}.weight"
    assert (addition.factor, addition.turned) == (4.0, False)


FACTORS: Mapping[str, tuple[Mapping[str, Any], float]] = {
    "rank-stabilised": ({"use_rslora": True}, 8 / math.sqrt(2)),
    "alpha for a layer": ({"alpha_pattern": {"q_proj": 6}}, 3.0),
    "alpha for another layer": ({"alpha_pattern": {"layers.1.self_attn.q_proj": 6}}, 4.0),
    "a rank of its own": ({"r": 64, "rank_pattern": {"q_proj": 2}}, 4.0),
    "no alpha": ({"lora_alpha": 8, "alpha_pattern": None}, 4.0),
}


@pytest.mark.parametrize("case", FACTORS)
def test_the_factor_is_pefts(case: str) -> None:
    settings, factor = FACTORS[case]

    ((_, addition),) = additions(adapter(**settings), folder(BASE)).items()

    assert addition.factor == pytest.approx(factor)


def test_a_base_that_keeps_its_matrices_turned_gets_them_turned() -> None:
    ((_, addition),) = additions(adapter(fan_in_fan_out=True), folder({f"{Q}.weight": (16, 8)})).items()

    assert addition.turned


OTHERS: Mapping[str, tuple[ModelFolder, str]] = {
    "DoRA": (adapter(use_dora=True), "DoRA"),
    "whole layers": (adapter(modules_to_save=["lm_head"]), "modules_to_save"),
    "trained tokens": (adapter(trainable_token_indices=[1]), "trainable_token_indices"),
    "biases": (adapter(bias="all"), "bias: all"),
    "PiSSA": (adapter(init_lora_weights="pissa"), "init_lora_weights: pissa"),
    "LoHa": (adapter(peft_type="LOHA"), "LOHA"),
    "embeddings": (
        adapter({**PLAIN, "base_model.model.model.embed_tokens.lora_embedding_A": (2, 32)}),
        "base_model.model.model.embed_tokens.lora_embedding_A",
    ),
    "convolutions": (
        adapter({f"base_model.model.{Q}.lora_A.weight": (2, 4, 3), f"base_model.model.{Q}.lora_B.weight": (8, 2, 1)}),
        "convolutions",
    ),
    "layers that the base does not have": (
        adapter({name.replace("layers.0", "layers.9"): shape for name, shape in PLAIN.items()}),
        "tensors that the base's files name otherwise",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_else_is_left_to_peft(what: str) -> None:
    model, reason = OTHERS[what]

    assert why_peft(model, folder(BASE)) == reason


def test_what_adds_to_the_prompt_cannot_be_merged() -> None:
    with pytest.raises(ConversionError, match="is no LoRA adapter but prefix tuning"):
        why_peft(adapter(peft_type="PREFIX_TUNING"), folder(BASE))


def test_an_adapter_of_another_base_is_refused_with_both_shapes() -> None:
    with pytest.raises(ConversionError, match=r"q_proj is 8 × 16 in the adapter and 4 × 16 in the base"):
        additions(adapter(), folder({f"{Q}.weight": (4, 16)}))


def test_half_an_adapter_is_refused() -> None:
    half = {name: shape for name, shape in PLAIN.items() if "lora_A" in name}

    with pytest.raises(ConversionError, match=r"it has no .*lora_B"):
        additions(adapter(half), folder(BASE))


def test_embeddings_that_were_trained_with_new_tokens_say_how_many_rows_they_need() -> None:
    grown = adapter({"base_model.model.model.embed_tokens.weight": (40, 16)})
    same = adapter({"base_model.model.model.embed_tokens.weight": (32, 16)})

    assert rows_wanted(grown, folder(BASE)) == 40
    assert rows_wanted(same, folder(BASE)) is None
    assert rows_wanted(adapter(), folder(BASE)) is None
