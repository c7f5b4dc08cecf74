"""What an Ollama daemon's failures mean: its texts, and JSON inside them, as errors from backends/errors.py. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from backends.errors import BackendError, EngineFailed, NotReady, Rejected, Taken, Unsupported

MAX_CHARS: Final = 500
MAX_DEPTH: Final = 4
_UNSAID: Final = "it failed and gave no reason that can be shown"
_TOO_LONG: Final = re.compile(r"exceeds? the (?:available )?context|longer than the context length")
_COUNTS: Final = re.compile(r"\((\d+) tokens\).*\((\d+) tokens\)")
_LACKS: Final = re.compile(r"does not support (tools|thinking|insert|chat|generate|completion|embeddings?|vision)\b")
_PARAMS: Final = {"tools": "tools", "thinking": "reasoning_effort", "insert": "suffix"}
# What a client must not see: paths of the daemon's machine.
_PATH: Final = re.compile(r"(?:/[\w.+-]+){2,}/?|[A-Za-z]:\\[^\s\"']+")


class Said(msgspec.Struct, frozen=True):
    """An error, unpacked. `prompt_tokens` and `num_ctx`: of a prompt that was too long, as far as they are known."""

    text: str
    is_too_long: bool = False
    prompt_tokens: int | None = None
    num_ctx: int | None = None


def read(error: Any) -> Said:
    """The value of an `error` member, which may be JSON in a string, and again."""
    for _ in range(MAX_DEPTH):
        if isinstance(error, str) and error.lstrip()[:1] == "{":
            try:
                error = msgspec.json.decode(error)
            except (msgspec.DecodeError, RecursionError):
                break
        if isinstance(error, dict) and "error" in error:
            error = error["error"]
        elif not isinstance(error, str):
            break
    members = error if isinstance(error, dict) else {}
    text = members.get("message") if members else error
    text = " ".join(text.split()) if isinstance(text, str) and text.strip() else _UNSAID
    counts = _COUNTS.search(text)
    return Said(
        text=_PATH.sub("…", text)[:MAX_CHARS],
        is_too_long=members.get("type") == "exceed_context_size_error" or _TOO_LONG.search(text) is not None,
        prompt_tokens=_count(members.get("n_prompt_tokens"), counts[1] if counts else None),
        num_ctx=_count(members.get("n_ctx"), counts[2] if counts else None),
    )


def _count(said: Any, found: str | None) -> int | None:
    if isinstance(said, int) and not isinstance(said, bool):
        return said
    return int(found) if found is not None else None


def in_stream(engine: str, error: Any, num_ctx: int | None) -> Taken:
    """An error line in the middle of an answer."""
    said = read(error)
    return too_long(engine, said, num_ctx) if said.is_too_long else EngineFailed(engine, said.text)


def refusal(engine: str, status: int, body: bytes, num_ctx: int | None, load_s: float | None) -> BackendError | None:
    """The error for a complete answer that is not 2xx, where the daemon's own words say more than its status; else
    None. `load_s`: how long the model took to load when it last did, for a `Retry-After`.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    said = read(value)
    if status == 503:
        return NotReady(engine, "it is loading models, and enough requests wait for that", load_s)
    if said.is_too_long and status in (400, 500):
        return too_long(engine, said, num_ctx)
    lacks = _LACKS.search(said.text)
    if lacks is not None and status in (400, 500, 501):
        return Unsupported(engine, f"The model does not support {lacks[1]}.", param=_PARAMS.get(lacks[1]))
    return None


def too_long(engine: str, said: Said, num_ctx: int | None) -> Rejected:
    """OpenAI's error for it, with both numbers where both are known."""
    has = said.num_ctx or num_ctx
    message = f"This model's context length is {has} tokens" if has else "The prompt is longer than the model's context"
    message += f", and the request has {said.prompt_tokens}" if said.prompt_tokens else ""
    message += ". Shorten it, or raise `num_ctx` of the backend." if has else "; shorten it."
    return Rejected(
        engine, message, status=400, type_="invalid_request_error", code="context_length_exceeded", param="messages"
    )
