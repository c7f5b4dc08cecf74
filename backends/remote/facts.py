"""Facts of a remote engine's models, from its list of models. Pure."""

from __future__ import annotations

from typing import Any

from backends.endpoint import CAPABILITIES, DECLARED, FAILED, VERIFIED, ModelFacts
from backends.http.openai_models import entries_of, positive


def of_remote(listed: Any) -> dict[str, ModelFacts]:
    """The facts of each model in `listed`, the body of `GET /v1/models`, decoded. vLLM gives the context length,
    another Modelport also capabilities and quantization. Models of which nothing is known are left out.
    """
    facts = {}
    for entry in entries_of(listed):
        length = positive(entry.get("context_length")) or positive(entry.get("max_model_len"))
        reported = entry.get("capabilities")
        known = reported if isinstance(reported, dict) else {}
        capabilities = {
            name: FAILED if known[name] == FAILED else DECLARED
            for name in CAPABILITIES
            if known.get(name) in (DECLARED, VERIFIED, FAILED)
        }
        packed = entry.get("quantization")
        quantization = packed[:64] if isinstance(packed, str) and packed else None
        if length or capabilities or quantization:
            facts[str(entry["id"])] = ModelFacts(
                context_length=length, capabilities=capabilities, quantization=quantization
            )
    return facts
