"""An Ollama daemon's failures as errors of backends/errors.py: by its texts, and by JSON inside them. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from backends.errors import BackendError, EngineFailed, NotReady, Taken, Unsupported
from backends.prompt_too_long import Length, TooLong, length_of

MAX_CHARS: Final = 500
MAX_DEPTH: Final = 4
_NO_REASON: Final = "it failed and gave no reason that can be shown"
_UNSUPPORTED: Final = re.compile(
    r"does not support (tools|thinking|insert|chat|generate|completion|embeddings?|vision)\b"
)
_PARAMS: Final = {"tools": "tools", "thinking": "reasoning_effort", "insert": "suffix", "vision": "messages"}
# Paths of the daemon's machine, which a client must not see.
_PATH: Final = re.compile(r"(?:/[\w.+-]+){2,}/?|[A-Za-z]:\\[^\s\"']+")


class DaemonError(msgspec.Struct, frozen=True):
    """An error, unpacked: its text, and for a request that is too long its length."""

    text: str
    length: Length | None = None


def read(error: Any) -> DaemonError:
    """The error in the value of an `error` member, which may be JSON in a string, which may hold JSON again."""
    length = length_of(error)
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
    text = " ".join(text.split()) if isinstance(text, str) and text.strip() else _NO_REASON
    return DaemonError(_PATH.sub("…", text)[:MAX_CHARS], length)


def in_stream(engine: str, error: Any, num_ctx: int | None) -> Taken:
    """The failure for an error line in the middle of a response."""
    failure = read(error)
    if failure.length is not None:
        return too_long(engine, failure.length, num_ctx)
    return EngineFailed(engine, failure.text)


def refusal(engine: str, status: int, body: bytes, num_ctx: int | None, load_s: float | None) -> BackendError | None:
    """The failure for a complete response that is not 2xx, where its body says more than its status; else None.
    `num_ctx`: the context length that the model was asked for. `load_s`: how long it took to load last time, for a
    `Retry-After`.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    failure = read(value)
    if status == 503:
        return NotReady(engine, "it is loading models, and too many requests wait for that", load_s)
    if failure.length is not None and status in (400, 500):
        return too_long(engine, failure.length, num_ctx)
    unsupported = _UNSUPPORTED.search(failure.text)
    if unsupported is not None and status in (400, 500, 501):
        ability = unsupported[1]
        return Unsupported(engine, f"The model does not support {ability}.", param=_PARAMS.get(ability, "model"))
    return None


def too_long(engine: str, length: Length, num_ctx: int | None) -> TooLong:
    """The error for a request that is longer than the model's context, with the setting that helps."""
    limit = length.limit or num_ctx
    advice = ", or raise `num_ctx` of the backend" if limit else ""
    return TooLong(engine, msgspec.structs.replace(length, limit=limit), advice=advice)
