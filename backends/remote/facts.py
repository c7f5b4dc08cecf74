"""What the list of models of somebody's endpoint says, as facts. Pure."""

from __future__ import annotations

from typing import Any

from backends.endpoint import CAPABILITIES, DECLARED, FAILED, VERIFIED, ModelFacts
from backends.http.openai_models import entries_of, positive


def of_remote(listed: Any) -> dict[str, ModelFacts]:
    """From somebody's list of models: vLLM's length, or what another Modelport says."""
    found = {}
    for entry in entries_of(listed):
        length = positive(entry.get("context_length")) or positive(entry.get("max_model_len"))
        said = entry.get("capabilities")
        known = said if isinstance(said, dict) else {}
        capabilities = {
            name: FAILED if known[name] == FAILED else DECLARED
            for name in CAPABILITIES
            if known.get(name) in (DECLARED, VERIFIED, FAILED)
        }
        packed = entry.get("quantization")
        quantization = packed[:64] if isinstance(packed, str) and packed else None
        if length or capabilities or quantization:
            found[str(entry["id"])] = ModelFacts(
                context_length=length, capabilities=capabilities, quantization=quantization
            )
    return found
