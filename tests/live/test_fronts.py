"""Clients of other dialects on a real vLLM: what only it has a word for, and tokens counted by itself."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from anthropic import Anthropic
from ollama import Client
from openai import OpenAI
from openai.types.responses import Response

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
        said = {client.chat("tiny", QUESTION, options=options).message.content for _ in range(4)}

    assert len(said) == 1


def test_a_raw_prompt_and_a_stream_of_lines(live: Live) -> None:
    with Client(live.url) as client:
        raw = client.generate("tiny", "a", raw=True, options={"num_predict": 4})
        parts = list(client.chat("tiny", QUESTION, stream=True, options={"num_predict": 4}))

    assert (raw.eval_count, parts[-1].eval_count, parts[-1].done_reason) == (4, 4, "length")


@pytest.mark.parametrize("stream", [False, True])
def test_a_named_tool_is_called_in_every_dialect(live: Live, anthropic: Anthropic, stream: bool) -> None:
    asked: Any = {"model": "tiny", "messages": QUESTION, "max_tokens": LIMIT}
    asked |= {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "weather"}}
    function: Any = {"type": "function", "name": "weather", "parameters": HOT}
    named: Any = {"type": "function", "name": "weather"}
    openai = OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
    if stream:
        with anthropic.messages.stream(**asked) as message_stream:
            message = message_stream.get_final_message()
        with openai.responses.stream(
            model="tiny", input="Hot?", tools=[function], tool_choice=named, max_output_tokens=LIMIT
        ) as response_stream:
            response: Response = response_stream.get_final_response()
    else:
        message = anthropic.messages.create(**asked)
        response = openai.responses.create(
            model="tiny", input="Hot?", tools=[function], tool_choice=named, max_output_tokens=LIMIT
        )

    (block,) = message.content
    (item,) = response.output
    assert block.type == "tool_use"
    assert isinstance(block.input["hot"], bool)
    assert message.stop_reason == "tool_use"
    assert item.type == "function_call"
    assert isinstance(json.loads(item.arguments)["hot"], bool)


@pytest.mark.parametrize("more", [{}, {"system": "Be brief."}, {"tools": [TOOL]}])
def test_tokens_are_counted_as_they_will_be(anthropic: Anthropic, more: Any) -> None:
    counted = anthropic.messages.count_tokens(model="tiny", messages=QUESTION, **more)
    answer = anthropic.messages.create(model="tiny", messages=QUESTION, max_tokens=1, **more)

    assert counted.input_tokens == answer.usage.input_tokens


def test_the_beginning_of_an_answer_is_gone_on_with(anthropic: Anthropic) -> None:
    """Nothing closes the assistant's message and opens another one, so the prompt is shorter than of a new turn."""
    begun = [*QUESTION, {"role": "assistant", "content": "The"}]
    turned = [*begun, {"role": "user", "content": ""}]

    short = anthropic.messages.count_tokens(model="tiny", messages=begun)
    long = anthropic.messages.count_tokens(model="tiny", messages=turned)

    assert short.input_tokens < long.input_tokens
    assert anthropic.messages.create(model="tiny", messages=begun, max_tokens=4).usage.output_tokens >= 1


def test_the_stop_sequence_that_ended_it_is_told(live: Live) -> None:
    plain = {"model": "tiny", "messages": QUESTION, "max_tokens": 16, "temperature": 0}
    text = live.post("/v1/messages", plain).json()["content"][0]["text"]
    stop = next(character for character in text[2:] if character.strip())

    stopped = httpx.post(f"{live.url}/v1/messages", json={**plain, "stop_sequences": [stop]}, timeout=60).json()

    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", stop)
