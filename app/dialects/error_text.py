"""What an engine's error says, in one line that is fit for a client, whatever shape it came in. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

MAX_CHARS = 500
MAX_DEPTH = 8
_TRACE = re.compile(r'Traceback \(most recent call last\)|\bFile "[^"]*", line \d+')
_NO_REASON = "it failed and gave no reason that can be shown"


class ErrorText(msgspec.Struct, frozen=True):
    """OpenAI's four members, read from any engine's error body."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None


def one_line(error: Any) -> str:
    """The message in a decoded error (a string, an object with `message`, a list of details), MAX_CHARS at most."""
    text = _text_of(error, MAX_DEPTH)
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def _text_of(error: Any, depth: int) -> str:
    match error:
        case str():
            return _clean(error, depth)
        case {"message": inner} | {"detail": inner} | {"error": inner} | {"msg": inner} if depth:
            return _text_of(inner, depth - 1)
        case [*items] if depth:
            return "; ".join(_text_of(item, depth - 1) for item in items[:5]) or _NO_REASON
        case _:
            return _NO_REASON


def _clean(text: str, depth: int) -> str:
    if _TRACE.search(text):
        return _NO_REASON
    text = " ".join(text.split())
    if depth and text.startswith("{") and "error" in text:  # llama.cpp behind Ollama: JSON inside the string
        try:
            return _text_of(msgspec.json.decode(text), depth - 1)
        except (msgspec.DecodeError, RecursionError):
            pass
    return text or _NO_REASON


def read(body: bytes) -> ErrorText:
    """An engine's error body: `{"error": {…}}`, `{"error": "…"}`, `{"detail": …}`, plain text, HTML or nothing.

    A traceback or a page of HTML becomes a sentence that says nothing of it.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:4096].decode("utf-8", "replace")
        return ErrorText(_NO_REASON if "<" in text[:200] else one_line(text))
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        return ErrorText(one_line(error), _text(error.get("type")), _text(error.get("param")), _text(error.get("code")))
    return ErrorText(one_line(value))


def _text(value: Any) -> str | None:
    """A string as it is, else None: a number as code (vLLM's) says nothing that the status does not."""
    return value if isinstance(value, str) and value else None
