"""Who asks for a place at an engine that is full, how urgent it is, and how long the client waits for it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from app.ipc import Claim
from app.relay.planning.plan import RequestPlan

# OpenAI's word for a request that may take longer.
_FLEX: Final = b'"flex"'
# How long a client waits for the whole response, each with its unit in seconds: what Envoy allows the request.
_WHOLE_HEADERS: Final = (("x-envoy-expected-rq-timeout-ms", 0.001),)
# The same for the next sign of life: OpenAI's and Anthropic's SDKs. A stream gives one after `server.hold_s`.
_SILENCE_HEADERS: Final = (("x-stainless-read-timeout", 1.0), ("x-stainless-timeout", 1.0))


def claim(plan: RequestPlan, headers: Mapping[str, str], hold_s: float) -> Claim:
    """The claim of a request with these headers. A key that is for batches makes every request one; others may say so
    of a single request (`service_tier: flex`). `hold_s`: after so long a stream begins, whatever it waits for.
    """
    key = plan.key
    tier = plan.given.get("service_tier")
    is_flex = tier is not None and bytes(memoryview(tier)[: len(_FLEX)]) == _FLEX
    silence_s = _least(headers, _SILENCE_HEADERS)
    if plan.is_stream and silence_s is not None and silence_s > hold_s:
        silence_s = None
    within_s = [each for each in (silence_s, _least(headers, _WHOLE_HEADERS)) if each is not None]
    return Claim(
        key=key.name if key is not None else None,
        is_batch=is_flex or (key is not None and key.is_batch),
        within_s=min(within_s, default=None),
    )


def _least(headers: Mapping[str, str], names: tuple[tuple[str, float], ...]) -> float | None:
    """The shortest of these times in seconds; None where none is given, or none is a time."""
    times = [_number(headers.get(name, "")) * unit for name, unit in names]
    return min((seconds for seconds in times if seconds > 0.0), default=None)


def _number(text: str) -> float:
    """The number that a header holds; 0 for anything else."""
    try:
        number = float(text) if len(text) <= 32 else 0.0
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0
