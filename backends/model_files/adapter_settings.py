"""What an adapter's adapter_config.json says, and which of it vLLM does not compute. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

NO_WEIGHTS: Final = "changes nothing: it has no weights"
MERGE: Final = "merge it into the base and serve the merged model: `modelport register FOLDER --merge`"
_OF_CLASSES: Final = frozenset({"classifier", "score"})  # heads that vLLM takes from an adapter
# Ways to begin the training that leave the base as it is; the others change its weights too.
_PLAIN_STARTS: Final = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
_KINDS: Final = {
    "use_dora": "is a DoRA",
    "lora_bias": "has a bias (`lora_bias`)",
    "alora_invocation_tokens": "is an activated LoRA (aLoRA)",
    "layer_replication": "repeats layers of the base (`layer_replication`)",
    "use_bdlora": "is a block-diagonal LoRA",
    "use_qalora": "is a QALoRA",
}


def settings_flaw(config: Mapping[str, Any], max_rank: int | None) -> str | None:
    """The end of a sentence that begins with the adapter; None where vLLM computes all that these settings say."""
    return next(_flaws(config, max_rank), None)


def ranks(config: Mapping[str, Any]) -> Sequence[int]:
    """Its rank, and those of modules that have one of their own."""
    patterns = config.get("rank_pattern")
    values = [config.get("r"), *(patterns.values() if isinstance(patterns, dict) else ())]
    return [rank for value in values if (rank := as_integer(value)) is not None]


def base_named(config: Mapping[str, Any]) -> str | None:
    """The base that it says it was trained on, without the folders of the machine where that was."""
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named.strip("/\\. "):
        return None
    is_on_hub = named.count("/") == 1 and not named.startswith((".", "/", "~"))
    return named if is_on_hub else re.split(r"[/\\]", named.rstrip("/\\"))[-1]


def as_integer(value: object) -> int | None:
    """The value where it is a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _flaws(config: Mapping[str, Any], max_rank: int | None) -> Iterator[str]:
    kind = config.get("peft_type", "LORA")
    if str(kind).upper() != "LORA":
        yield f"is of the type {kind!r}, and vLLM serves LoRA only: {MERGE}"
    rank = as_integer(config.get("r"))
    if rank is None or rank < 1:
        yield "is broken: its adapter_config.json names no rank (`r`)"
    if not isinstance(config.get("lora_alpha"), int | float):
        yield "is broken: its adapter_config.json has no `lora_alpha`"
    if not config.get("target_modules") and not config.get("target_parameters"):
        yield "is broken: its adapter_config.json names no `target_modules`"
    saved = [name for name in _words(config.get("modules_to_save")) if name not in _OF_CLASSES]
    if saved:
        yield f"trained whole layers besides (`modules_to_save`: {', '.join(saved)}), which vLLM leaves out: {MERGE}"
    if config.get("trainable_token_indices"):
        yield f"trained embeddings of its own (`trainable_token_indices`), which vLLM leaves out: {MERGE}"
    for key, what in _KINDS.items():
        if config.get(key):
            yield f"{what}, which vLLM does not compute: {MERGE}"
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        yield (
            f"changed the base's own weights when its training began (`init_lora_weights: {start}`): convert it with "
            f"PEFT's `path_initial_model_for_weight_conversion`, or {MERGE}"
        )
    if config.get("bias", "none") != "none":
        yield f"trained biases besides (`bias: {config['bias']}`), which vLLM does not take: {MERGE}"
    if config.get("lora_alpha") == 0 and not config.get("alpha_pattern"):
        yield "changes nothing: its `lora_alpha` is 0"
    highest = max(ranks(config), default=0)
    if max_rank is not None and highest > max_rank:
        yield (
            f"has the rank {highest}, and the engine was started for at most {max_rank}: write it under `adapters` and "
            f"restart the backend, which starts it for that rank, or set `args: [--max-lora-rank={highest}]`"
        )


def _words(value: object) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    return [str(each) for each in value] if isinstance(value, list) else []
