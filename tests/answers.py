"""What an answer must be, for tests that give an engine's to the gateway's own reading of it."""

from __future__ import annotations

from app.dialects.mend import Terms
from app.dialects.thinking import Reasoning

TOKEN, CREATED = "t0ken", 1_700_000_000


def terms(
    name: str = "mine", *, engine: str = "engine", operation: str = "chat", reasoning: Reasoning = "keep"
) -> Terms:
    """Of a request for `name`."""
    return Terms(engine, name, operation, TOKEN, CREATED, reasoning)
