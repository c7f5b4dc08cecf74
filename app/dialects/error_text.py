"""What an engine's error says, in one line that is fit for a client, whatever shape it came in."""

from __future__ import annotations

import re
from typing import Any

import msgspec

MAX_CHARS = 500
MAX_DEPTH = 8
_TRACE = re.compile(r'Traceback \(most recent call last\)|\bFile "[^"]*", line \d+')
_UNSAID = "it failed and gave no reason that can be shown"


class ErrorText(msgspec.Struct, frozen=True):
    """OpenAI's four members, read from any engine's error body."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None


def one_line(error: Any) -> str:
    """The message in an error value: a string, an object with `message`, a list of FastAPI details."""
    text = _text_of(error, MAX_DEPTH)
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def _text_of(error: Any, depth: int) -> str:
    match error:
        case str():
            return _clean(error, depth)
        case {"message": inner} | {"detail": inner} | {"error": inner} | {"msg": inner} if depth:
            return _text_of(inner, depth - 1)
        case [*items] if depth:
            return "; ".join(_text_of(item, depth - 1) for item in items[:5]) or _UNSAID
        case _:
            return _UNSAID


def _clean(text: str, depth: int) -> str:
    if _TRACE.search(text):
        return _UNSAID
    text = " ".join(text.split())
    if depth and text.startswith("{") and "error" in text:  # llama.cpp behind Ollama: JSON inside the string
        try:
            return _text_of(msgspec.json.decode(text), depth - 1)
        except (msgspec.DecodeError, RecursionError):
            pass
    return text or _UNSAID


def read(body: bytes) -> ErrorText:
    """An engine's error body: vLLM's integers, `{"error": "…"}`, `{"detail": …}`, plain text, HTML or nothing."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:4096].decode("utf-8", "replace")
        return ErrorText(_UNSAID if "<" in text[:200] else one_line(text))
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        return ErrorText(one_line(error), _text(error.get("type")), _text(error.get("param")), _text(error.get("code")))
    return ErrorText(one_line(value))


def _text(value: Any) -> str | None:
    """Strings as they are; an integer code says nothing that the status does not."""
    return value if isinstance(value, str) and value else None
