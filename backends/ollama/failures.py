"""What an Ollama daemon's failures mean: its texts, and JSON inside them, as errors from backends/errors.py. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from backends.errors import BackendError, EngineFailed, NotReady, Taken, Unsupported
from backends.prompt_too_long import Length, TooLong, found

MAX_CHARS: Final = 500
MAX_DEPTH: Final = 4
_UNSAID: Final = "it failed and gave no reason that can be shown"
_LACKS: Final = re.compile(r"does not support (tools|thinking|insert|chat|generate|completion|embeddings?|vision)\b")
_PARAMS: Final = {"tools": "tools", "thinking": "reasoning_effort", "insert": "suffix", "vision": "messages"}
# What a client must not see: paths of the daemon's machine.
_PATH: Final = re.compile(r"(?:/[\w.+-]+){2,}/?|[A-Za-z]:\\[^\s\"']+")


class Said(msgspec.Struct, frozen=True):
    """An error, unpacked. `length`: of a prompt that was too long."""

    text: str
    length: Length | None = None


def read(error: Any) -> Said:
    """The value of an `error` member, which may be JSON in a string, and again."""
    length = found(error)
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
    return Said(_PATH.sub("…", text)[:MAX_CHARS], length)


def in_stream(engine: str, error: Any, num_ctx: int | None) -> Taken:
    """An error line in the middle of an answer."""
    said = read(error)
    return too_long(engine, said.length, num_ctx) if said.length is not None else EngineFailed(engine, said.text)


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
    if said.length is not None and status in (400, 500):
        return too_long(engine, said.length, num_ctx)
    lacks = _LACKS.search(said.text)
    if lacks is not None and status in (400, 500, 501):
        return Unsupported(engine, f"The model does not support {lacks[1]}.", param=_PARAMS.get(lacks[1], "model"))
    return None


def too_long(engine: str, length: Length, num_ctx: int | None) -> TooLong:
    """OpenAI's error for it."""
    limit = length.limit or num_ctx
    advice = ", or raise `num_ctx` of the backend" if limit else ""
    return TooLong(engine, msgspec.structs.replace(length, limit=limit), advice=advice)
