"""OpenAI's answers that come in one piece: whether they are sound, what they cost, and the name they carry. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from app.dialects.openai import Settlement, Timings, renaming, tokens
from app.dialects.reason import one_line
from backends.errors import Broken, EngineFailed


class _Choice(msgspec.Struct, frozen=True):
    finish_reason: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    choices: list[_Choice] | None = None
    data: list[msgspec.Raw] | None = None
    usage: Any = None
    timings: Timings | None = None
    error: Any = None
    model: str | None = None


_answers = msgspec.json.Decoder(_Answer)


def settle(engine: str, operation: str, name: str, body: bytes) -> tuple[bytes, Settlement]:
    """The answer with the client's name for the model, and its cost.

    Raises Broken for what is not an answer of that operation, EngineFailed for an error under status 200.
    """
    try:
        answer = _answers.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        what = "an empty body" if not body.strip() else "what is not a JSON answer"
        raise Broken(engine, f"it sent {what}") from exc
    if answer.error is not None:
        raise EngineFailed(engine, one_line(answer.error))
    if (answer.data if operation == "embeddings" else answer.choices) is None:
        raise Broken(engine, "it sent JSON that is not an answer to this request")
    rename = renaming(body, answer.model, name) if answer.model is not None else None
    finish = next((c.finish_reason for c in answer.choices or () if c.finish_reason), None)
    usage, timings = tokens(answer.usage), answer.timings
    if usage is not None:
        cost = Settlement(usage.prompt_tokens, usage.completion_tokens, finish)
    elif timings is not None:
        cost = Settlement(timings.prompt_n + timings.cache_n, timings.predicted_n, finish)
    else:
        cost = Settlement(finish_reason=finish, is_counted=True)
    return (body.replace(*rename, 1) if rename else body), cost
