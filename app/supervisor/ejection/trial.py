"""One small request that shows whether an engine is well, and how long it took."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

from backends.endpoint import Dialect, Endpoint
from backends.errors import BackendError
from backends.http.probe_client import ProbeClient, Reply

# Operation → path and body (without `model`). Whatever else a model does, its engine is only asked for its list.
_REQUESTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "chat": ("/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}),
    "text_completion": ("/completions", {"prompt": "Hi", "max_tokens": 1}),
    "embeddings": ("/embeddings", {"input": "Hi"}),
}
SLOW_FACTOR: Final = 3.0
SLOW_S: Final = 1.0


class Trial(NamedTuple):
    """What came of it. `failure`: in words, None where it is well."""

    seconds: float
    failure: str | None = None


async def ask(endpoint: Endpoint, model: str, operation: str, limit_s: float) -> Trial:
    """Ask an engine for what requests of that operation ask for, as small as can be. It is not well when it does not
    respond within `limit_s`."""
    path, body = _REQUESTS.get(operation, ("/models", None))
    base = f"{endpoint.address}/v1" if endpoint.dialect is Dialect.OLLAMA else endpoint.address
    began = time.monotonic()
    try:
        reply = await ProbeClient(endpoint.engine).ask(
            f"{base}{path}",
            endpoint.headers,
            timeout_s=limit_s,
            body=None if body is None else {"model": model, **body},
            dial=endpoint.dial,
        )
        failure = failed(reply)
    except BackendError as exc:
        failure = exc.message
    return Trial(time.monotonic() - began, failure)


def failed(reply: Reply) -> str | None:
    """Why a response shows that the engine is not well; None where it is. Who refuses what is asked (4xx) is well."""
    if reply.status >= 500:
        return f"it answers with status {reply.status}"
    if reply.status < 300:
        answer = reply.json()
        if not isinstance(answer, dict) or "error" in answer:
            return "its response is not valid"
    return None


def is_slow(own: Trial, other: Trial) -> bool:
    """Whether the same request took much longer than at another engine."""
    return own.seconds >= SLOW_FACTOR * other.seconds and own.seconds - other.seconds >= SLOW_S
