"""Which tensor of the base each matrix of a LoRA adapter belongs to, and how much of it is added: as PEFT takes it.
Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.conversion.errors import ConversionError
from app.conversion.model_folder import ModelFolder

_PREFIX: Final = "base_model.model."
_MATRIX: Final = re.compile(r"(.+)\.lora_(A|B)\.weight")
_PLAIN_START: Final = (True, False, None, "gaussian", "eva", "orthogonal")
_ALPHA: Final = 8  # where the file does not say it
# Settings of PEFT that change nothing of what plain LoRA computes once it is trained.
_HARMLESS_USES: Final = ("use_rslora",)
_EMBEDDINGS: Final = ("embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out", "tok_embeddings")


@dataclass(frozen=True, slots=True)
class LowRankAddition:
    """What is added to one tensor of the base: the product of B and A times `factor`, turned where the base keeps the
    tensor so. `a` and `b`: names in the adapter's file.
    """

    a: str
    b: str
    factor: float
    turned: bool


def why_peft(adapter: ModelFolder, base: ModelFolder) -> str | None:
    """What this adapter is besides plain LoRA, so that PEFT itself has to merge it; None for plain LoRA.

    Raises ConversionError for one that cannot be merged at all.
    """
    config = adapter.config
    kind = str(config.get("peft_type") or "LORA").upper()
    if kind in ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT"):
        raise ConversionError(
            f"'{adapter.folder}' is no LoRA adapter but {kind.lower().replace('_', ' ')}, which adds to the prompt "
            "rather than to weights: it cannot be merged, and so not converted"
        )
    if kind != "LORA":
        return kind
    for name, value in config.items():
        if name.startswith("use_") and name not in _HARMLESS_USES and value:
            return "DoRA" if name == "use_dora" else name
    for name in ("modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters", "lora_bias"):
        if config.get(name):
            return name
    if config.get("bias") not in (None, "none"):
        return f"bias: {config['bias']}"
    if config.get("init_lora_weights") not in _PLAIN_START:
        return f"init_lora_weights: {config['init_lora_weights']}"
    odd = [name for name in adapter.tensors if _MATRIX.fullmatch(name) is None]
    if odd:
        return odd[0]
    if any(len(tensor.shape) != 2 for tensor in adapter.tensors.values()):
        return "convolutions"
    if any(name not in base.tensors for name in _targets(adapter)):
        return "tensors that the base's files name otherwise"
    return None


def additions(adapter: ModelFolder, base: ModelFolder) -> Mapping[str, LowRankAddition]:
    """What is added to which tensor of the base, by its name. Only for plain LoRA. Raises ConversionError: a matrix
    without its other half, or shapes that do not fit.
    """
    config = adapter.config
    turned = bool(config.get("fan_in_fan_out"))
    result: dict[str, LowRankAddition] = {}
    for target, module in _targets(adapter).items():
        a, b = (f"{module}.lora_{half}.weight" for half in "AB")
        missing = next((name for name in (a, b) if name not in adapter.tensors), None)
        if missing is not None:
            raise ConversionError(f"'{adapter.folder}' is broken: it has no {missing}")
        (rank, inner), (outer, again) = adapter.tensors[a].shape, adapter.tensors[b].shape
        shape = (inner, outer) if turned else (outer, inner)
        if rank != again or shape != base.tensors[target].shape:
            raise ConversionError(
                f"'{adapter.folder}' does not fit its base '{base.folder}': {module.removeprefix(_PREFIX)} is "
                f"{_times(shape)} in the adapter and {_times(base.tensors[target].shape)} in the base; name the model "
                "that it was trained on with --base"
            )
        result[target] = LowRankAddition(a, b, _factor(config, module.removeprefix(_PREFIX), rank), turned)
    return result


def rows_wanted(adapter: ModelFolder, base: ModelFolder) -> int | None:
    """How many rows the embeddings must have for an adapter that brings its own; None where the base's fit."""
    for name, tensor in adapter.tensors.items():
        module = name.removesuffix(".weight").removesuffix(".base_layer").removesuffix(".modules_to_save")
        if module.rpartition(".")[2] not in _EMBEDDINGS or len(tensor.shape) != 2 or ".lora_" in name:
            continue
        have = base.tensors.get(f"{module.removeprefix(_PREFIX)}.weight")
        if have is not None and have.shape[0] != tensor.shape[0]:
            return tensor.shape[0]
    return None


def _targets(adapter: ModelFolder) -> Mapping[str, str]:
    """The base's tensors that the adapter names, each with the module's name in the adapter."""
    modules = {match[1] for name in adapter.tensors if (match := _MATRIX.fullmatch(name)) is not None}
    return {f"{module.removeprefix(_PREFIX)}.weight": module for module in sorted(modules)}


def _factor(config: Mapping[str, Any], module: str, rank: int) -> float:
    alphas = config.get("alpha_pattern") or {}
    own = next((alphas[pattern] for pattern in alphas if re.match(rf"(.*\.)?({pattern})$", module)), None)
    alpha = float(own if own is not None else config.get("lora_alpha", _ALPHA))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
