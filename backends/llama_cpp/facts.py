"""Facts of the embedded engine's model, from what llama.cpp's server reports. Pure."""

from __future__ import annotations

from typing import Any, Final

from backends.endpoint import DECLARED, FAILED, ModelFacts
from backends.http.openai_models import OF_TEXT, member, positive


def of_llama_cpp(props: Any, *, embeds: bool) -> ModelFacts | None:
    """The facts in `props`, the body of `GET /props`, decoded; None when it is not an object. `embeds`: the model makes
    embeddings.
    """
    if not isinstance(props, dict):
        return None
    capabilities = dict.fromkeys(("embedding",) if embeds else OF_TEXT, DECLARED)
    has_vision = member(props, "modalities", "vision")
    if isinstance(has_vision, bool):
        capabilities["vision"] = DECLARED if has_vision else FAILED
    has_tools = member(props, "chat_template_caps", "supports_tools")
    if isinstance(has_tools, bool) and not embeds:
        capabilities["tools"] = DECLARED if has_tools else FAILED
    length = member(props, "default_generation_settings", "n_ctx")
    packed = props.get("model_ftype")
    return ModelFacts(
        context_length=positive(length),
        capabilities=capabilities,
        quantization=packed if isinstance(packed, str) and packed else None,
    )


# As its server calls what answers are drawn with, and as vLLM does.
_DRAWN: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
}


def sampling(props: Any) -> dict[str, float] | None:
    """What answers are drawn with when a request says nothing, by vLLM's names, from the body of `GET /props`, decoded;
    None where it does not say.
    """
    params = member(props, "default_generation_settings", "params")
    if not isinstance(params, dict):
        return None
    told = {ours: params[theirs] for theirs, ours in _DRAWN.items() if isinstance(params.get(theirs), int | float)}
    return {name: round(float(value), 4) for name, value in told.items()} or None
