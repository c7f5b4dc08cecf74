"""Requests as clients of hosted models send them, on the embedded model: parameters, media, and what it can do."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import httpx
import pytest

from tests import ROOT
from tests.journeys.gateway import MODEL, Gateway, modelport

# As Easy Dataset asks, with its own defaults.
ASKED: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 8192,
    "temperature": 0,
    "top_p": 0,
    "messages": [{"role": "user", "content": "What is 7+5? Answer with one number."}],
}
PLAYGROUND: dict[str, Any] = {
    "stream": True,
    "send_reasoning": True,
    "reasoning": True,
    "messages": [
        {
            "role": "user",
            "content": "What is 7+5? Answer with one number.",
            "parts": [{"type": "text", "text": "What is 7+5?"}],
            "experimental_attachments": [],
        }
    ],
}
PICTURE = "data:image/png;base64,iVBORw0KGgo="
TOOL = {"type": "function", "function": {"name": "note", "parameters": {"type": "object", "properties": {}}}}


def post(gateway: Gateway, body: dict[str, Any], path: str = "/v1/chat/completions") -> httpx.Response:
    return httpx.post(f"{gateway.url}{path}", json=body, timeout=60)


def refused(gateway: Gateway, **fields: Any) -> tuple[int, str, str]:
    answer = post(gateway, {**ASKED, "max_tokens": 8, **fields})
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def content(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


@pytest.mark.parametrize("max_tokens", [8192, 1_000_000_000])
def test_more_tokens_than_there_are_and_no_choice_of_them_are_answered(gateway: Gateway, max_tokens: int) -> None:
    answer = post(gateway, {**ASKED, "max_tokens": max_tokens})

    assert answer.status_code == 200
    assert "12" in answer.json()["choices"][0]["message"]["content"]
    assert answer.headers["x-modelport-adjusted-params"] == "max_tokens, top_p"


def test_the_playgrounds_stream_has_fields_that_nobody_knows_and_is_answered(gateway: Gateway) -> None:
    answer = post(gateway, {**ASKED, **PLAYGROUND})
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]

    assert (answer.status_code, events[-1]) == (200, "[DONE]")
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1] if json.loads(event)["choices"]]
    assert "12" in "".join(delta.get("content") or "" for delta in deltas)


def test_a_completion_ends_where_its_bound_says_under_either_name(gateway: Gateway) -> None:
    body = {"model": MODEL, "prompt": "Once upon a time", "max_completion_tokens": 3, "temperature": 0}
    answer = post(gateway, body, "/v1/completions")

    assert answer.json()["usage"]["completion_tokens"] == 3
    assert answer.headers["x-modelport-adjusted-params"] == "max_completion_tokens"


def test_what_harms_an_engine_is_refused_by_name(gateway: Gateway) -> None:
    assert refused(gateway, chat_template="{{ 1 }}") == (400, "parameter_refused", "chat_template")
    assert refused(gateway, n=100_000) == (400, "parameter_refused", "n")
    assert refused(gateway, chat_template_kwargs={"tokenize": True}) == (
        400,
        "parameter_refused",
        "chat_template_kwargs",
    )


def test_pictures_are_refused_for_what_they_are(gateway: Gateway) -> None:
    web = content({"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/cat.png"}})
    data = content({"type": "image_url", "image_url": {"url": PICTURE}})

    assert refused(gateway, messages=web) == (400, "not_supported", "messages[0].content[0].image_url.url")
    assert refused(gateway, messages=data) == (400, "not_supported", "messages")


def test_a_tool_that_must_be_called_is_refused_by_a_model_without_tools(gateway: Gateway) -> None:
    assert refused(gateway, tools=[TOOL], tool_choice="required") == (400, "not_supported", "tool_choice")
    assert post(gateway, {**ASKED, "max_tokens": 1, "tools": [TOOL]}).status_code == 200


def entry(gateway: Gateway) -> dict[str, Any]:
    model: dict[str, Any] = httpx.get(f"{gateway.url}/v1/models/{MODEL}").json()
    return model


def test_the_list_says_what_the_engine_reports_and_after_a_probe_what_was_shown(gateway: Gateway) -> None:
    before = entry(gateway)
    command = [*modelport(), "probe", MODEL, "--state", gateway.status()["state_folder"], "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    after = entry(gateway)

    assert (before["context_length"], before["quantization"], before["backend"]) == (8192, "Q4_1", "demo")
    assert before["capabilities"] == {
        **dict.fromkeys(("chat", "completion", "json_schema", "logprobs"), "declared"),
        **dict.fromkeys(("vision", "tools"), "failed"),
    }
    shown = json.loads(done.stdout)[0]["probes"][0]
    assert shown["capabilities"] == after["capabilities"]
    assert after["capabilities"] == {
        **dict.fromkeys(("chat", "completion", "json_schema", "logprobs"), "verified"),
        **dict.fromkeys(("vision", "tools", "embedding", "reasoning"), "failed"),
    }


def test_what_the_embedded_engine_would_ignore_is_done_named_or_refused(gateway: Gateway) -> None:
    short = {**ASKED, "max_tokens": 8, "top_p": 1}
    label = post(gateway, {**short, "guided_choice": ["perhaps so", "never"]})
    named = post(gateway, {**short, "user": "u", "store": True, "stop": ["", "zzz"]})

    assert label.json()["choices"][0]["message"]["content"] in ("perhaps so", "never")
    assert label.headers["x-modelport-adjusted-params"] == "guided_choice"
    assert named.json()["choices"][0]["message"]["content"]
    assert named.headers["x-modelport-adjusted-params"] == "stop"
    assert named.headers["x-modelport-dropped-params"] == "store, user"
    assert refused(gateway, functions=[{"name": "f", "parameters": {}}]) == (400, "not_supported", "functions")
    assert refused(gateway, guided_regex="[ab]+") == (400, "not_supported", "guided_regex")
    echo = post(gateway, {"model": MODEL, "prompt": "One", "echo": True, "max_tokens": 9}, "/v1/completions")
    assert (echo.status_code, echo.json()["error"]["code"]) == (400, "not_supported")


def test_how_likely_a_prompt_is_the_embedded_engine_tells_as_its_server_would(gateway: Gateway) -> None:
    text = "The capital of France is Paris."
    asked = {"model": MODEL, "temperature": 0, "max_tokens": 1, "logprobs": 2}
    prompts = [text, "Once upon a time"]
    told = post(gateway, {**asked, "prompt": prompts, "echo": True}, "/v1/completions").json()
    tokens = post(gateway, {"model": MODEL, "prompt": text}, "/tokenize").json()["tokens"]
    by_tokens = post(gateway, {**asked, "prompt": tokens, "echo": True, "n": 2}, "/v1/completions").json()
    server = post(gateway, {**asked, "prompt": text}, "/v1/completions").json()["choices"][0]
    streamed = post(gateway, {**asked, "prompt": text, "echo": True, "stream": True}, "/v1/completions")
    bare = post(gateway, {**asked, "prompt": text, "echo": True, "max_tokens": 0, "logprobs": None}, "/v1/completions")

    first = told["choices"][0]
    lists = first["logprobs"]
    assert [choice["index"] for choice in told["choices"]] == [0, 1]
    assert first["text"] == text + server["text"]
    assert "".join(lists["tokens"]) == first["text"]
    assert lists["token_logprobs"][0] is lists["top_logprobs"][0] is None
    assert lists["token_logprobs"][-1] == pytest.approx(server["logprobs"]["token_logprobs"][0], abs=0.05)
    assert all(
        first["text"][at:].startswith(token) for at, token in zip(lists["text_offset"], lists["tokens"], strict=True)
    )
    assert [choice["logprobs"] for choice in by_tokens["choices"]] == [lists, lists]
    assert told["usage"]["completion_tokens"] == 2
    assert by_tokens["usage"]["prompt_tokens"] == len(tokens)
    assert text in streamed.text
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert bare.json()["choices"][0] == {"index": 0, "text": text, "logprobs": None, "finish_reason": "length"}


def test_a_prompt_of_which_nothing_can_be_told_is_refused_by_the_embedded_engine(gateway: Gateway) -> None:
    asked = {"model": MODEL, "max_tokens": 0, "logprobs": 1, "echo": True}

    def error(prompt: Any) -> tuple[int, str, str]:
        answer = post(gateway, {**asked, "prompt": prompt}, "/v1/completions")
        return answer.status_code, answer.json()["error"]["param"], answer.json()["error"]["code"]

    assert error("") == (400, "prompt", "invalid_request")
    assert error([999_999]) == (400, "prompt", "invalid_request")
    assert error([5] * 9000) == (400, "prompt", "context_length_exceeded")


def test_several_answers_of_the_embedded_engine_cost_their_sum(gateway: Gateway) -> None:
    asked = {"model": MODEL, "max_tokens": 4, "temperature": 0}
    texts = ["Once upon a time", "The sky is blue and", "x"]
    each = [post(gateway, {**asked, "prompt": text}, "/v1/completions").json()["usage"] for text in texts]
    all_ = post(gateway, {**asked, "prompt": texts, "logprobs": 1}, "/v1/completions").json()

    assert all_["usage"]["prompt_tokens"] == sum(one["prompt_tokens"] for one in each)
    assert all_["usage"]["completion_tokens"] == 12
    for choice in all_["choices"]:
        logprobs = choice["logprobs"]
        assert "".join(logprobs["tokens"]) == choice["text"]
        assert all(
            choice["text"][at:].startswith(token)
            for at, token in zip(logprobs["text_offset"], logprobs["tokens"], strict=True)
        )
        assert {len(values) for values in logprobs.values()} == {4}
