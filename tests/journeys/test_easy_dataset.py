"""Easy Dataset's own requests: its connection test, its model list, its Playground with three models side by side.

Where it reads a stream it looks at `choices[0].delta.content` and `.reasoning_content` and at nothing else: an error
event means nothing to it, so a failure must show as a connection that is cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.journeys.gateway import KEY, MODEL, Gateway

# As its settings are when nobody has touched them.
DEFAULTS: dict[str, Any] = {"max_tokens": 8192, "temperature": 0.7, "top_p": 0}
SHORT: dict[str, Any] = {**DEFAULTS, "max_tokens": 8}
CALM: dict[str, Any] = {**SHORT, "temperature": 0}


def messages(text: str = "What is 7+5?") -> list[dict[str, Any]]:
    """Messages as its chat writes them."""
    part = {"type": "text", "text": text}
    return [{"role": "user", "content": text, "parts": [part], "experimental_attachments": []}]


@pytest.fixture
def page(gateway: Gateway) -> Iterator[httpx.Client]:
    headers = {"authorization": "Bearer none"}
    with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=120) as client:
        yield client


def streamed(page: httpx.Client, model: str, settings: dict[str, Any] = SHORT) -> tuple[str, str]:
    """What it shows of a response: text and reasoning. Raises what fetch would when the connection is cut."""
    body = {
        "model": model,
        "messages": messages(),
        "stream": True,
        "send_reasoning": True,
        "reasoning": True,
        **settings,
    }
    text = thoughts = ""
    with page.stream("POST", "/chat/completions", json=body) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["content-type"].startswith("text/event-stream")
        for line in reply.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            try:
                delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
            except (KeyError, IndexError, ValueError):
                continue  # it goes on
            text += delta.get("content") or ""
            thoughts += delta.get("reasoning_content") or ""
    return text, thoughts


def test_the_connection_test_lists_the_models(page: httpx.Client) -> None:
    reply = page.get("/models")

    assert reply.status_code == 200
    assert {MODEL, "fake/fake"} <= {model["id"] for model in reply.json()["data"]}


def test_a_wrong_key_reads_as_a_wrong_key(locked: Gateway) -> None:
    wrong = httpx.get(f"{locked.base_url}/models", headers={"authorization": "Bearer wrong"})
    none = httpx.get(f"{locked.base_url}/models")
    right = httpx.get(f"{locked.base_url}/models", headers={"authorization": f"Bearer {KEY}"})

    assert [wrong.status_code, none.status_code, right.status_code] == [401, 401, 200]
    assert wrong.json()["error"]["code"] == "invalid_api_key"


def test_a_question_is_answered_in_one_piece_with_its_defaults(page: httpx.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "What is 7+5?"}], **DEFAULTS}

    reply = page.post("/chat/completions", json=body)

    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"]
    assert "top_p" in reply.headers["x-modelport-adjusted-params"]


@pytest.mark.parametrize("model", [MODEL, "fake/fake"])
def test_the_playground_streams_with_the_fields_it_adds(page: httpx.Client, model: str) -> None:
    text, _ = streamed(page, model, DEFAULTS)

    assert text


def test_three_models_answer_side_by_side(page: httpx.Client) -> None:
    with ThreadPoolExecutor(3) as three:
        answers = list(three.map(lambda model: streamed(page, model, CALM), [MODEL, "fake/fake", "gpt-3.5-turbo"]))

    assert all(text for text, _ in answers)
    assert answers[0][0] == answers[2][0]  # the same model, with nothing left to chance


@pytest.mark.parametrize("scenario", ["fin_mid_stream", "reset_mid_stream", "error_event", "half_event_in_order"])
def test_a_failure_in_the_middle_is_a_cut_connection_and_no_short_answer(page: httpx.Client, scenario: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        streamed(page, f"fake/fault:{scenario}")


def test_a_model_that_does_not_serve_is_a_status_before_anything_streams(page: httpx.Client) -> None:
    body = {"model": "fake/fault:status_503_vllm", "messages": messages(), "stream": True, **SHORT}

    reply = page.post("/chat/completions", json=body)

    assert reply.status_code == 503
    assert reply.json()["error"]["message"]
