"""What an engine's response of status 4xx or 5xx means for the client and for the next target. Pure."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping

from app.dialects import error_text
from app.dialects.openai import finite
from backends import prompt_too_long
from backends.errors import BackendError, EngineFailed, NotReady, Rejected, Saturated, Unsupported
from backends.prompt_too_long import TooLong

_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]+)?")
# llama.cpp says this with status 500 when the model takes no such input.
_BLIND = re.compile(r"(image|audio|video) input is not supported")
# llama.cpp says this with status 500 when it could not read the request; it has not begun any work then.
_MALFORMED = re.compile(
    r"Failed to parse (?P<field>messages|tools)\b|Unknown (?P<name>[a-z]+ [a-z]+):|\[json\.exception\."
)
_PASSED = {400: "invalid_request", 413: "request_too_large", 415: "unsupported_media_type", 422: "invalid_request"}


def refusal(engine: str, status: int, headers: Mapping[str, str], body: bytes, now: float) -> BackendError:
    """The error for a complete response that is not 2xx. `now` is Unix seconds (for a `Retry-After` date)."""
    text = error_text.read(body)
    if status == 429:
        return Saturated(engine, "it is busy", retry_after(headers.get("retry-after"), now))
    if status == 503:
        return NotReady(engine, "it is not ready", retry_after(headers.get("retry-after"), now))
    if status in (401, 403):
        return EngineFailed(engine, "it refuses the gateway's own credential; its `api_key` must be corrected")
    if status == 404:
        # The engine's own text may list its other models, which this client may not be allowed to know.
        message = "The engine behind this name does not have the model."
        return Rejected(
            engine, message, status=404, type_="invalid_request_error", code="model_not_found", param="model"
        )
    if status in (405, 501):
        message = f"The engine behind this name cannot do that: {text.message}"
        return Rejected(engine, message, status=400, type_="invalid_request_error", code="not_supported")
    length = prompt_too_long.in_body(body) if status <= 500 else None
    if length is not None:
        return TooLong(engine, length)
    if finite.REFUSAL in text.message:
        return finite.failed(engine)
    if 400 <= status < 500:
        code = text.code or _PASSED.get(status, "invalid_request")
        type_ = text.type if text.type and text.type.endswith("_error") else "invalid_request_error"
        kept = status if status in _PASSED else 400
        return Rejected(engine, text.message, status=kept, type_=type_, code=code, param=text.param)
    match = _BLIND.match(text.message)
    if match is not None:
        return Unsupported(engine, f"The model behind this name takes no {match[1]}s.", param="messages")
    match = _MALFORMED.match(text.message) if status == 500 else None
    if match is not None:
        field = match["field"] or (match["name"] or "").replace(" ", "_") or None
        return Rejected(
            engine, text.message, status=400, type_="invalid_request_error", code="invalid_value", param=field
        )
    return EngineFailed(engine, text.message)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds in a `Retry-After` (a number or a date); None when it is absent or is neither."""
    if value is None:
        return None
    if _NUMBER.fullmatch(value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def names_stream_options(error: BackendError, body: bytes) -> bool:
    """Whether the engine refuses the `stream_options` that we added (a 400 or 422 that names them).

    Engines echo what they are sent, so a client's body with that word in it proves nothing.
    """
    is_refusal = isinstance(error, Rejected) and error.status in (400, 422)
    return is_refusal and "stream_options" in error.message and b"stream_options" not in body
