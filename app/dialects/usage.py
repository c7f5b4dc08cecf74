"""What an answer cost, as engines tell it: tokens, and seconds. Pure."""

from __future__ import annotations

from typing import Any

import msgspec


class TokenCounts(msgspec.Struct, frozen=True):
    """OpenAI's `usage`, what we read of it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


def tokens(usage: Any) -> TokenCounts | None:
    """A `usage` of any shape; it is for counting only, so one that cannot be read counts as none."""
    if not isinstance(usage, dict):
        return None
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    return TokenCounts(*(max(0, int(n)) if isinstance(n, int | float) and abs(n) < 2**53 else 0 for n in counts))


class LlamaTimings(msgspec.Struct, frozen=True):
    """llama.cpp's own count in its last chunk."""

    prompt_n: int = 0
    cache_n: int = 0
    predicted_n: int = 0


def timings(value: Any) -> LlamaTimings | None:
    """`timings` of any shape, for counting only as well."""
    try:
        return msgspec.convert(value, LlamaTimings) if value else None
    except msgspec.ValidationError:
        return None


class Usage(msgspec.Struct, frozen=True):
    """What an answer cost. `is_counted`: the engine gave no usage, output tokens are counted events."""

    input_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None
    is_counted: bool = False
