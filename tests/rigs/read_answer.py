"""For tests that have the gateway's readers read an engine's response: what they are told of the request."""

from __future__ import annotations

from itertools import accumulate

from app.dialects.openai.normalize import ResponseContext
from app.dialects.reasoning import Reasoning

TOKEN, CREATED = "t0ken", 1_700_000_000


def response_context(
    name: str = "mine", *, engine: str = "engine", operation: str = "chat", reasoning: Reasoning = "keep"
) -> ResponseContext:
    """The context of a response to a request for `name`."""
    return ResponseContext(engine, name, operation, TOKEN, CREATED, reasoning)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data cut into pieces of these sizes, and the rest."""
    starts = [0, *accumulate(sizes)]
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]
