"""Transcriptions that come in one piece: whether they are sound, what they are, and what they cost. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.dialects.error_text import one_line
from app.dialects.usage import Usage
from app.errors import JSON
from backends.errors import Broken, EngineFailed

_TEXTS: Final = ("text/plain", "text/vtt", "application/x-subrip", "text/srt")


class _Answer(msgspec.Struct, frozen=True):
    text: str | None = None
    usage: Any = None
    error: Any = None


_answers = msgspec.json.Decoder(_Answer)


def settle(engine: str, content_type: str, body: bytes) -> tuple[str, bytes, Usage]:
    """The content type, the response and its cost: JSON, or plain text where `response_format` is text, srt or vtt.

    Raises Broken for what is neither, EngineFailed for an error under status 200.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _TEXTS:
        return f"{kind}; charset=utf-8", body, Usage()
    try:
        answer = _answers.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Broken(engine, "it sent what is not a JSON answer") from exc
    if answer.error is not None:
        raise EngineFailed(engine, one_line(answer.error))
    if answer.text is None:
        raise Broken(engine, "it sent JSON that is not an answer to this request")
    return JSON, body, _cost(answer.usage)


def _cost(usage: Any) -> Usage:
    """Some count tokens, under names of their own, and some seconds."""
    counts = [usage.get(name, 0) if isinstance(usage, dict) else 0 for name in ("input_tokens", "output_tokens")]
    spoken, written = (count if isinstance(count, int) and 0 <= count < 2**53 else 0 for count in counts)
    return Usage(spoken, written)
