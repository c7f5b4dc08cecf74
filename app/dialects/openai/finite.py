"""Whether log probabilities are numbers. An engine that has computed NaN writes `null` for them, or refuses to write
its response at all. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from backends.errors import NotFinite

# vLLM says this with status 400, as if the request were bad.
REFUSAL: Final = "Out of range float values are not JSON compliant"


def failed(engine: str) -> NotFinite:
    """What the client hears of it."""
    return NotFinite(engine, "what it computed for this answer are no numbers (NaN or infinity)")


def are_numbers(logprobs: Any) -> bool:
    """Whether all of a choice's log probabilities are, in the shape of chats or of completions. The first token of an
    echoed prompt has none, and that is right; it has no list of others either.
    """
    if not isinstance(logprobs, dict):
        return True
    content = logprobs.get("content")
    if isinstance(content, list) and any(_is_none(entry) for entry in content):
        return False
    values, tops = logprobs.get("token_logprobs"), logprobs.get("top_logprobs")
    if isinstance(values, list) and None in values[1:]:
        return False
    return not isinstance(tops, list) or not any(isinstance(top, dict) and None in top.values() for top in tops)


def _is_none(entry: Any) -> bool:
    return isinstance(entry, dict) and "logprob" in entry and entry["logprob"] is None
