"""Whole answers put together from chunks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.dialects.openai.collector import Collector

HEAD = {"id": "chatcmpl-1", "created": 1, "model": "m", "object": "chat.completion.chunk"}


def assembled(*chunks: dict[str, Any]) -> Any:
    collector = Collector()
    for chunk in chunks:
        collector.add(b"data: " + msgspec.json.encode(chunk) + b"\n\n")
    collector.add(b"data: [DONE]\n\n")
    return msgspec.json.decode(collector.response())


def delta(index: int = 0, finish: str | None = None, **pieces: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": index, "delta": pieces, "finish_reason": finish}]}


def test_text_comes_together_and_what_is_said_once_stays_as_it_is() -> None:
    answer = assembled(
        delta(role="assistant", content=None),
        delta(content="7 + 5"),
        delta(role="assistant", content=" = 12."),
        delta(finish="stop"),
        {**HEAD, "choices": [], "usage": {"completion_tokens": 4}, "timings": {"predicted_n": 4}},
    )

    assert answer == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "7 + 5 = 12."}},
        ],
        "usage": {"completion_tokens": 4},
        "timings": {"predicted_n": 4},
    }


def test_choices_that_come_in_turn_are_kept_apart_and_in_order() -> None:
    answer = assembled(delta(1, content="b"), delta(0, content="a"), delta(1, "stop"), delta(0, "length", content="c"))

    found = [(c["index"], c["message"]["content"], c["finish_reason"]) for c in answer["choices"]]
    assert found == [(0, "ac", "length"), (1, "b", "stop")]


def test_tool_calls_come_together_by_their_index_and_lose_it() -> None:
    first = {"index": 0, "id": "x", "type": "function", "function": {"name": "add", "arguments": ""}}
    second = {"index": 1, "id": "y", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    answer = assembled(
        delta(role="assistant", content=None, tool_calls=[first]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
        delta(tool_calls=[second, {"index": 0, "function": {"arguments": ": 1}"}}]),
        delta(finish="tool_calls"),
    )

    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
        {"id": "y", "type": "function", "function": {"name": "add", "arguments": "{}"}},
    ]


def test_thinking_and_probabilities_come_together_too() -> None:
    def token(text: str) -> dict[str, Any]:
        return {"content": [{"token": text, "logprob": -0.5, "top_logprobs": []}]}

    chunks = [delta(reasoning_content="hm"), delta(reasoning_content="m", content="a"), delta(content="b")]
    for chunk, text in zip(chunks, "xyz", strict=True):
        chunk["choices"][0]["logprobs"] = token(text)
    answer = assembled(*chunks, delta(finish="stop"))

    choice = answer["choices"][0]
    assert choice["message"] == {"role": "assistant", "reasoning_content": "hmm", "content": "ab"}
    assert [one["token"] for one in choice["logprobs"]["content"]] == ["x", "y", "z"]


def test_a_text_completion_keeps_its_own_shape() -> None:
    head = {"id": "c", "object": "text_completion"}
    answer = assembled(
        {**head, "choices": [{"text": "One", "index": 0, "logprobs": None, "finish_reason": None}]},
        {**head, "choices": [{"text": " two", "index": 0, "logprobs": None, "finish_reason": "length"}]},
    )

    choice = {"text": "One two", "index": 0, "logprobs": None, "finish_reason": "length"}
    assert answer == {**head, "choices": [choice]}


@pytest.mark.parametrize("calls", [None, []])
def test_an_answer_without_text_has_an_empty_one(calls: list[Any] | None) -> None:
    answer = assembled(delta(role="assistant", content=None, tool_calls=calls), delta(finish="stop"))

    assert answer["choices"][0]["message"]["content"] == ""
