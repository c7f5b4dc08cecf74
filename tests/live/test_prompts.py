"""Prompts that are too long for vLLM, and conversations that a template may not take, over the real engine."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.live.engines import Live

LONG = "word " * 4000  # of a context of 2048
TOKENS = [5] * 3000
USER, LATE = {"role": "user", "content": "hello"}, {"role": "system", "content": "a later note"}
TOO_LONG: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": LONG}], "max_tokens": 100},
    "/v1/completions": {"prompt": TOKENS},
    "/v1/responses": {"input": LONG},
    "/v1/messages": {"messages": [{"role": "user", "content": LONG}], "max_tokens": 100},
    "/api/chat": {"messages": [{"role": "user", "content": LONG}]},
    "/api/generate": {"prompt": LONG},
}


def ask(live: Live, path: str, **body: Any) -> httpx.Response:
    return live.post(path, {"model": "tiny", **body})


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", TOO_LONG)
def test_a_prompt_that_is_too_long_is_one_error_in_each_dialect(live: Live, path: str, stream: bool) -> None:
    reply = ask(live, path, **TOO_LONG[path], stream=stream)

    if path == "/v1/responses" and stream:
        assert reply.status_code == 200
        assert '"type":"response.failed"' in reply.text
        assert '"code":"context_length_exceeded"' in reply.text
    else:
        assert reply.status_code == 400
        error = reply.json()["error"]
        message = error if isinstance(error, str) else error["message"]
        assert ("tokens > 2048 maximum" if path == "/v1/messages" else "context length is 2048 tokens") in message
        if path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
            assert error["code"] == "context_length_exceeded"


def test_a_template_that_takes_any_role_gets_later_system_messages_as_they_are(live: Live) -> None:
    reply = ask(live, "/v1/chat/completions", messages=[USER, LATE], max_tokens=2)

    assert reply.status_code == 200
    assert "x-modelport-adjusted-params" not in reply.headers


def test_a_developer_is_told_as_system(live: Live) -> None:
    reply = ask(live, "/v1/chat/completions", messages=[{**LATE, "role": "developer"}, USER], max_tokens=2)

    assert (reply.status_code, reply.headers["x-modelport-adjusted-params"]) == (200, "messages")
