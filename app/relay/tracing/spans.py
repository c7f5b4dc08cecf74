"""A span as it is sent, and the names of the attributes that ours have.

Attributes that begin with `gen_ai.`, `server.`, `http.`, `url.` and `error.` are OpenTelemetry's
(semantic conventions, generative AI); the others are ours. None holds a prompt, an answer or a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

Value: TypeAlias = str | int | float | bool | tuple[str, ...]

INTERNAL: Final = 1
SERVER: Final = 2
CLIENT: Final = 3


class SpanEvent(NamedTuple):
    """A moment in a span. `at_ns`: Unix nanoseconds."""

    name: str
    at_ns: int
    attributes: Mapping[str, Value] = {}


class Span(NamedTuple):
    """A piece of work. Ids are lower-case hex digits; `parent_id` is empty for the first of a trace. Times are Unix
    nanoseconds. `error`: why it failed, empty where it did not."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    error: str = ""
    events: Sequence[SpanEvent] = ()
    trace_state: str = ""
    flags: int = 1
