"""Every failure a client can see: one table from exceptions to status, type and code, in OpenAI's error shape.

Each code has its heading in docs/errors.md (a test holds it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from backends import errors as backend
from backends.prompt_too_long import Length, TooLong

JSON = "application/json"


class Problem(Exception):
    """What a client is told: an HTTP status and the four members of OpenAI's error object."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        type_: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        length: Length | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.type = type_ or ("invalid_request_error" if status < 500 else "server_error")
        self.param = param
        self.length = length  # of a request that is too long: some dialects say it in words of their own
        # No 429 or 503 leaves without saying when to come again.
        advice = retry_after(DEFAULT_RETRY_AFTER_S) if status in (429, 503) else {}
        self.headers = {**advice, **(headers or {})}

    def body(self) -> bytes:
        """The JSON document, also the data of an error event."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


# What happened → status, code, and whether a client may send the same request again by itself.
TABLE: dict[type[backend.BackendError], tuple[int, str, bool]] = {
    backend.Unreachable: (502, "engine_unreachable", True),
    backend.Stale: (503, "engine_not_ready", True),
    backend.NotReady: (503, "engine_not_ready", True),
    backend.GivenUp: (503, "engine_not_ready", False),
    backend.Saturated: (429, "engine_saturated", True),
    backend.Disconnected: (502, "engine_disconnected", False),
    backend.TimedOut: (504, "engine_timeout", False),
    backend.Broken: (502, "engine_broken_answer", False),
    backend.EngineFailed: (502, "engine_failed", False),
}
# `Retry-After` beyond this helps nobody: SDKs ignore it or hang on it.
RETRY_AFTER_MAX_S = 120.0
DEFAULT_RETRY_AFTER_S = 5.0


def problem(error: backend.BackendError) -> Problem:
    """The one translation of an engine's failure."""
    if isinstance(error, backend.Rejected):
        length = error.length if isinstance(error, TooLong) else None
        return Problem(error.status, error.code, error.message, type_=error.type, param=error.param, length=length)
    if isinstance(error, backend.Unsupported):
        return Problem(400, "not_supported", error.message, param=error.param)
    status, code, may_retry = _row(error)
    headers = {"x-should-retry": "true" if may_retry else "false"}
    if status in (429, 503):
        seconds = getattr(error, "retry_after_s", None)
        headers |= retry_after(DEFAULT_RETRY_AFTER_S if seconds is None else seconds)
    type_ = "rate_limit_error" if status == 429 else "server_error"
    found = Problem(status, code, f"{error.engine}: {error.message}", type_=type_, headers=headers)
    if isinstance(error, backend.GivenUp):
        found.headers = _given_up(error.retry_after_s)
    return found


def _given_up(seconds: float | None) -> dict[str, str]:
    """The truth, however far off: nobody is to wait for that. Nothing, where nobody knows when."""
    advice = {} if seconds is None else {"retry-after": str(max(1, math.ceil(seconds)))}
    return {**advice, "x-should-retry": "false"}


def outcome(error: backend.BackendError) -> str:
    """The failure as a metric's label: one of a fixed set, so never the code that an engine made up."""
    is_refusal = isinstance(error, backend.Rejected | backend.Unsupported)
    return "engine_rejected" if is_refusal else _row(error)[1]


def _row(error: backend.BackendError) -> tuple[int, str, bool]:
    """A kind of engine may refine a failure (backends/llama_cpp/gguf.py): the nearest known one counts."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def retry_after(seconds: float) -> dict[str, str]:
    """The two headers that SDKs read, from 1 s to RETRY_AFTER_MAX_S."""
    seconds = min(max(seconds, 1.0), RETRY_AFTER_MAX_S)
    return {"retry-after": str(int(-(-seconds // 1))), "retry-after-ms": str(int(seconds * 1000))}


def bad_request(message: str, *, param: str | None = None, code: str = "invalid_request") -> Problem:
    """A 400."""
    return Problem(400, code, message, param=param)


def not_found(advice: str = "") -> Problem:
    """No such route. The path is not echoed. `advice`: a further sentence, with a space before it."""
    return Problem(404, "route_not_found", f"There is no such route here; see /openapi.json for the list.{advice}")


def method_not_allowed(allowed: str) -> Problem:
    """The route exists, the method does not."""
    message = f"This route takes {allowed}."
    return Problem(405, "method_not_allowed", message, headers={"allow": allowed})


def unauthorized(message: str) -> Problem:
    """No key, a wrong one, or more than one."""
    return Problem(401, "invalid_api_key", message, headers={"www-authenticate": "Bearer"})


def forbidden(message: str) -> Problem:
    """A key that may not do this."""
    return Problem(403, "not_allowed", message)


def internal_error() -> Problem:
    """Our own mistake. An engine may have had the request, so an SDK must not send it again by itself."""
    message = "The gateway made a mistake; it is in its log."
    return Problem(500, "internal_error", message, headers={"x-should-retry": "false"})


def shutting_down(*, may_retry: bool) -> Problem:
    """The gateway ends and this request could not be finished."""
    headers = {"x-should-retry": "true" if may_retry else "false"}
    return Problem(503, "shutting_down", "The gateway is shutting down.", headers=headers)
