"""W3C trace context: the `traceparent` header, read and written, and which traces are sampled. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

SAMPLED = 0x01
_KNOWN = 0x03  # sampled, and random (the trace's id); others are to be zero where they are not known
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_LOWER_HALF = (1 << 64) - 1  # of a trace's id: what OpenTelemetry's samplers go by


class TraceContext(NamedTuple):
    """One span as others know it: ids in lower-case hex digits (32 and 16), and W3C's flags."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether who made the span records it."""
        return bool(self.flags & SAMPLED)

    @property
    def header(self) -> str:
        """The value of `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parsed(traceparent: str | None) -> TraceContext | None:
    """What a `traceparent` says; None for one that is absent or not valid, which counts as absent."""
    match = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent is not None else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    # Version 00 ends with the flags; later ones may say more, which is not read.
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & _KNOWN)


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace that a client says its request belongs to."""
    context = parsed(traceparent)
    return context.trace_id if context is not None else None


def is_sampled(sampler: str, ratio: float, parent: TraceContext | None, trace_id: int) -> bool:
    """Whether a request's trace is recorded, by the sampler of OpenTelemetry's that has this name.

    `parentbased_…`: as the client's span says, and where there is none by what stands behind the word. `ratio`: the
    share of traces for `traceidratio`, chosen by the trace's id, so that every program chooses the same ones.
    """
    kind = sampler.removeprefix("parentbased_")
    if parent is not None and kind != sampler:
        return parent.is_sampled
    if kind == "traceidratio":
        return trace_id & _LOWER_HALF < round(ratio * (_LOWER_HALF + 1))
    return kind == "always_on"
