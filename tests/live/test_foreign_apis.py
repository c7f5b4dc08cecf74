"""Clients of other dialects on a real vLLM: what only it has a word for, and tokens counted by itself."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from anthropic import Anthropic, APIError
from anthropic.types import Message
from ollama import Client
from openai import OpenAI

from tests.live.engines import Live

QUESTION: Any = [{"role": "user", "content": "Say something."}]
HOT = {"type": "object", "properties": {"hot": {"type": "boolean"}}, "required": ["hot"], "additionalProperties": False}
TOOL: Any = {"name": "weather", "description": "Is it hot?", "input_schema": HOT}
LIMIT = 200  # tokens of what random weights may go on with


@pytest.fixture
def anthropic(live: Live) -> Anthropic:
    return Anthropic(base_url=live.url, api_key="none", max_retries=0)


def test_ollamas_options_reach_it_and_the_rest_is_named(live: Live) -> None:
    options = {"num_predict": 4, "top_k": 1, "min_p": 0.1, "repeat_penalty": 1.2, "num_ctx": 64, "typical_p": 0.9}
    body = {"model": "tiny:latest", "messages": QUESTION, "options": options, "think": False, "stream": False}

    reply = live.post("/api/chat", body)

    assert reply.status_code == 200, reply.text
    assert reply.headers["x-modelport-dropped-params"] == "num_ctx, typical_p"
    assert reply.json()["eval_count"] == 4


def test_top_k_of_one_is_the_likeliest_token_every_time(live: Live) -> None:
    """With a temperature of 2 nothing else could make four answers of random weights alike."""
    with Client(live.url) as client:
        options = {"num_predict": 8, "top_k": 1, "temperature": 2}
        contents = {client.chat("tiny", QUESTION, options=options).message.content for _ in range(4)}

    assert len(contents) == 1


def test_a_raw_prompt_and_a_stream_of_lines(live: Live) -> None:
    with Client(live.url) as client:
        raw = client.generate("tiny", "a", raw=True, options={"num_predict": 4})
        parts = list(client.chat("tiny", QUESTION, stream=True, options={"num_predict": 4}))

    assert (raw.eval_count, parts[-1].eval_count, parts[-1].done_reason) == (4, 4, "length")


@pytest.mark.parametrize("stream", [False, True])
def test_a_named_tool_is_called_in_every_dialect(live: Live, anthropic: Anthropic, stream: bool) -> None:
    """Random weights owe a tool any JSON at all; what is no object, Anthropic's clients cannot be given."""
    common: Any = {"model": "tiny", "temperature": 0}
    tool: Any = {"type": "function", "name": "weather", "parameters": HOT}
    named: Any = {"type": "function", "name": "weather"}
    chat = {**common, "messages": QUESTION, "max_tokens": LIMIT, "tools": [{"type": "function", "function": tool}]}
    chat["tool_choice"] = {"type": "function", "function": {"name": "weather"}}
    choice = live.post("/v1/chat/completions", chat).json()["choices"][0]
    arguments = choice["message"]["tool_calls"][0]["function"]["arguments"]
    openai = OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
    response = openai.responses.create(
        **common, input="Say something.", tools=[tool], tool_choice=named, max_output_tokens=LIMIT
    )
    choose: Any = {"type": "tool", "name": "weather"}
    asked: Any = {"model": "tiny", "messages": QUESTION, "max_tokens": LIMIT, "tools": [TOOL], "tool_choice": choose}
    asked |= {"extra_body": {"temperature": 0}}

    def answered() -> Message:
        if not stream:
            whole: Message = anthropic.messages.create(**asked)
            return whole
        with anthropic.messages.stream(**asked) as events:
            return events.get_final_message()

    (item,) = response.output
    assert item.type == "function_call"
    assert item.arguments == arguments
    if is_object(arguments):
        (block,) = answered().content
        assert block.type == "tool_use"
        assert block.input == json.loads(arguments)
    elif choice["finish_reason"] == "length":
        assert answered().stop_reason == "max_tokens"
    else:
        with pytest.raises(APIError, match="not a JSON object"):
            answered()


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@pytest.mark.parametrize("more", [{}, {"system": "Be brief."}, {"tools": [TOOL]}])
def test_tokens_are_counted_as_they_will_be(anthropic: Anthropic, more: Any) -> None:
    counted = anthropic.messages.count_tokens(model="tiny", messages=QUESTION, **more)
    answer = anthropic.messages.create(model="tiny", messages=QUESTION, max_tokens=1, **more)

    cached = answer.usage.cache_read_input_tokens or 0
    assert counted.input_tokens == answer.usage.input_tokens + cached


def test_the_beginning_of_an_answer_is_gone_on_with(anthropic: Anthropic) -> None:
    """Nothing closes the assistant's message and opens another one, so the prompt is shorter than of a new turn."""
    begun = [*QUESTION, {"role": "assistant", "content": "The"}]
    turned = [*begun, {"role": "user", "content": ""}]

    short = anthropic.messages.count_tokens(model="tiny", messages=begun)
    long = anthropic.messages.count_tokens(model="tiny", messages=turned)

    assert short.input_tokens < long.input_tokens
    assert anthropic.messages.create(model="tiny", messages=begun, max_tokens=4).usage.output_tokens >= 1


def test_the_stop_sequence_that_ended_it_is_told(live: Live) -> None:
    plain = {"model": "tiny", "messages": QUESTION, "max_tokens": 64, "temperature": 0}
    stop = live.post("/v1/messages", plain).json()["content"][0]["text"][-1]

    stopped = httpx.post(f"{live.url}/v1/messages", json={**plain, "stop_sequences": [stop]}, timeout=60).json()

    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", stop)
