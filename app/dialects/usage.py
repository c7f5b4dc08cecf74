"""What a response cost, as engines report it: tokens, and time. Pure."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from backends.http.delta import TokenCounts
from backends.http.exchange import ResponseTimings


def tokens(usage: Any) -> TokenCounts | None:
    """A `usage` of any shape; it is for counting only, so one that cannot be read counts as none."""
    if not isinstance(usage, dict):
        return None
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    return TokenCounts(*(max(0, int(n)) if isinstance(n, int | float) and abs(n) < 2**53 else 0 for n in counts))


_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class LlamaTimings(msgspec.Struct, frozen=True):
    """llama.cpp's own count in its last chunk."""

    prompt_n: _Count = 0
    cache_n: _Count = 0
    predicted_n: _Count = 0


def timings(value: Any) -> LlamaTimings | None:
    """`timings` of any shape, for counting only as well."""
    try:
        return msgspec.convert(value, LlamaTimings) if value else None
    except msgspec.ValidationError:
        return None


class Usage(msgspec.Struct, frozen=True):
    """What a response cost. `is_counted`: the engine reported no usage, so its events stand for the output tokens.
    `cached_tokens` are those of the input that were read from a cache, `reasoning_tokens` those of the output that were
    thinking, as far as the engine tells.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None
    is_counted: bool = False
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class EngineStats(msgspec.Struct):
    """What an engine reports of its work besides the token counts; None or 0 where it reports nothing.

    Times are milliseconds. `cached`: tokens of the prompt that were read from a cache; `reasoned`: tokens of the
    response that were thinking.
    """

    prompt_ms: float | None = None
    predicted_ms: float | None = None
    load_ms: float | None = None
    cached: int = 0
    reasoned: int = 0

    def note(self, usage: Any, timings: Any) -> None:
        """Take over what OpenAI's `usage` and llama.cpp's `timings` say, whatever their shape."""
        for name in ("prompt_ms", "predicted_ms", "load_ms"):
            value = timings.get(name) if isinstance(timings, dict) else None
            if isinstance(value, int | float) and value >= 0:
                setattr(self, name, float(value))
        self.cached = cached_tokens(usage, timings) or self.cached
        self.reasoned = reasoning_tokens(usage) or self.reasoned

    def note_times(self, timings: ResponseTimings | None) -> None:
        """Take over what an engine that does not speak OpenAI reported of its time."""
        for phase, seconds in (timings.phases() if timings is not None else {}).items():
            setattr(self, {"load": "load_ms", "prompt": "prompt_ms"}.get(phase, "predicted_ms"), seconds * 1e3)


def settled(counts: TokenCounts | None, finish: str | None, events: int, stats: EngineStats) -> Usage:
    """The usage of a stream of which so much is known until now: what the engine counted, else `events`."""
    if counts is not None and counts.completion_tokens:
        return Usage(
            counts.prompt_tokens,
            counts.completion_tokens,
            finish,
            cached_tokens=stats.cached,
            reasoning_tokens=stats.reasoned,
        )
    # Ollama says zero in every event but the last.
    known = counts.prompt_tokens if counts is not None else 0
    return Usage(known, events, finish, is_counted=events > 0 or counts is None, cached_tokens=stats.cached)


def reasoning_tokens(usage: Any) -> int:
    """Tokens of the response that were thinking."""
    return _count(usage, "completion_tokens_details", "reasoning_tokens")


def cached_tokens(usage: Any, timings: Any = None) -> int:
    """Tokens of the prompt that were read from a cache, under whichever name an engine has for them."""
    members = usage if isinstance(usage, dict) else {}
    others = (members.get("cached_tokens"), members.get("prompt_cache_hit_tokens"))  # Moonshot's, DeepSeek's
    own = timings.get("cache_n") if isinstance(timings, dict) else None  # llama.cpp's
    counts = [_count(usage, "prompt_tokens_details", "cached_tokens"), *map(_number, (*others, own))]
    return next((count for count in counts if count), 0)


def _count(usage: Any, part: str, name: str) -> int:
    details = usage.get(part) if isinstance(usage, dict) else None
    return _number(details.get(name)) if isinstance(details, dict) else 0


def _number(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**53 else 0
