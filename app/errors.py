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
    """An error as the client gets it: an HTTP status and the four members of OpenAI's error object."""

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
        self.length = length  # of a request that is too long: some dialects have a sentence of their own for it
        # No 429 or 503 leaves without saying when to come again.
        advice = retry_after(DEFAULT_RETRY_AFTER_S) if status in (429, 503) else {}
        self.headers = {**advice, **(headers or {})}

    def body(self) -> bytes:
        """The JSON document `{"error": {…}}`, which is also the data of an error event."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


# What happened → status, code, and whether a client may send the same request again by itself.
TABLE: dict[type[backend.BackendError], tuple[int, str, bool]] = {
    backend.Unreachable: (502, "engine_unreachable", True),
    backend.Stale: (503, "engine_not_ready", True),
    backend.NotReady: (503, "engine_not_ready", True),
    backend.GivenUp: (503, "engine_not_ready", False),
    # Raised in app/relay/supervisor_client.py when the engine's queue (app/supervisor/admission/gate.py) is full.
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
    """What a client is told of an engine's failure; the only place where that is decided."""
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
    failure = Problem(status, code, f"{error.engine}: {error.message}", type_=type_, headers=headers)
    if isinstance(error, backend.GivenUp):
        failure.headers = _given_up(error.retry_after_s)
    return failure


def _given_up(seconds: float | None) -> dict[str, str]:
    """The true `Retry-After` in seconds, however long; none where nobody knows when. Clients must not retry."""
    advice = {} if seconds is None else {"retry-after": str(max(1, math.ceil(seconds)))}
    return {**advice, "x-should-retry": "false"}


def outcome(error: backend.BackendError) -> str:
    """The failure as a label of a metric: one of a fixed set, never a code that an engine made up."""
    is_refusal = isinstance(error, backend.Rejected | backend.Unsupported)
    return "engine_rejected" if is_refusal else _row(error)[1]


def _row(error: backend.BackendError) -> tuple[int, str, bool]:
    """The row of its class or of the nearest above: kinds of engines refine failures (backends/llama_cpp/gguf.py)."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def retry_after(seconds: float) -> dict[str, str]:
    """The two headers that SDKs read: the seconds, held between 1 and RETRY_AFTER_MAX_S."""
    seconds = min(max(seconds, 1.0), RETRY_AFTER_MAX_S)
    return {"retry-after": str(int(-(-seconds // 1))), "retry-after-ms": str(int(seconds * 1000))}


def bad_request(message: str, *, param: str | None = None, code: str = "invalid_request") -> Problem:
    """Status 400: the request is not valid. `param`: the field that is wrong."""
    return Problem(400, code, message, param=param)


def not_found(advice: str = "") -> Problem:
    """Status 404 for a route. The path is not echoed. `advice`: a further sentence, with a space before it."""
    return Problem(404, "route_not_found", f"There is no such route here; see /openapi.json for the list.{advice}")


def method_not_allowed(allowed: str) -> Problem:
    """Status 405: the route exists and takes other methods. `allowed`: as `Allow` lists them."""
    message = f"This route takes {allowed}."
    return Problem(405, "method_not_allowed", message, headers={"allow": allowed})


def unauthorized(message: str) -> Problem:
    """Status 401: no key, a wrong one, or more than one."""
    return Problem(401, "invalid_api_key", message, headers={"www-authenticate": "Bearer"})


def keys_unavailable(message: str) -> Problem:
    """Status 503: whether the key is a good one cannot be known now."""
    return Problem(503, "keys_unavailable", message, headers={"x-should-retry": "true"})


def key_revoked() -> Problem:
    """Status 401: the key was revoked while its request ran."""
    return Problem(401, "key_revoked", "This API key was revoked.", headers={"x-should-retry": "false"})


def forbidden(message: str) -> Problem:
    """Status 403: the key may not do this."""
    return Problem(403, "not_allowed", message)


def internal_error() -> Problem:
    """Status 500, our own mistake. An engine may have had the request, so SDKs are told not to send it again."""
    message = "The gateway made a mistake; it is in its log."
    return Problem(500, "internal_error", message, headers={"x-should-retry": "false"})


def shutting_down(*, may_retry: bool) -> Problem:
    """Status 503: the gateway ends and this request could not be finished."""
    headers = {"x-should-retry": "true" if may_retry else "false"}
    return Problem(503, "shutting_down", "The gateway is shutting down.", headers=headers)
