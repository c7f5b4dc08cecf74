"""openai-python's tools: offered, named, called in one piece and in a stream, and answered.

The demo model's template does not support tools, so a fake engine makes the calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.journeys.gateway import MODEL, QUESTION, Gateway

CALLER = "fake/fault:tool_call"
STRICT = pytest.mark.parametrize("client", [False, True], ids=["lenient", "strict"], indirect=True)
CHOICES = pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "add"}}])
NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
ADD = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": NUMBERS}}
STRICT_ADD = {
    "type": "function",
    "function": {"name": "add", "strict": True, "parameters": {**NUMBERS, "additionalProperties": False}},
}


@pytest.fixture
def client(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[OpenAI]:
    strict = getattr(request, "param", False)
    with OpenAI(
        base_url=gateway.base_url, api_key="none", max_retries=0, _strict_response_validation=strict
    ) as openai_client:
        yield openai_client


def asking(choice: Any = "auto", **more: Any) -> Any:
    return {"model": CALLER, "messages": QUESTION, "tools": [ADD], "tool_choice": choice, **more}


@STRICT
@CHOICES
def test_a_tool_is_called_and_its_result_answered(client: OpenAI, choice: Any) -> None:
    first = client.chat.completions.create(**asking(choice))
    (call,) = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    spoken: list[Any] = [
        *QUESTION,
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "12"},
    ]
    last = client.chat.completions.create(**asking(messages=spoken))

    assert first.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 7, "b": 5})
    assert (last.choices[0].message.content or "").startswith("The sum of 7")


@STRICT
@CHOICES
def test_a_call_is_streamed_in_pieces(client: OpenAI, choice: Any) -> None:
    chunks = list(client.chat.completions.create(**asking(choice), stream=True))

    pieces = [piece for chunk in chunks for piece in chunk.choices[0].delta.tool_calls or ()]
    assert all(piece.index == 0 for piece in pieces)
    assert pieces[0].id
    assert pieces[0].function is not None
    assert (pieces[0].type, pieces[0].function.name) == ("function", "add")
    arguments = "".join(piece.function.arguments or "" for piece in pieces if piece.function)
    assert json.loads(arguments) == {"a": 7, "b": 5}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@STRICT
def test_the_stream_helper_puts_a_call_together(client: OpenAI) -> None:
    with client.chat.completions.stream(**asking(tools=[STRICT_ADD])) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()

    assert "tool_calls.function.arguments.done" in kinds
    (call,) = final.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == {"a": 7, "b": 5}


def test_responses_call_tools_too(client: OpenAI) -> None:
    tool: Any = {"type": "function", "name": "add", "parameters": NUMBERS}

    answer = client.responses.create(model=CALLER, input="What is 7+5?", tools=[tool])

    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 7, "b": 5})


@STRICT
@pytest.mark.parametrize("stream", [False, True])
def test_the_embedded_engine_takes_tools_that_its_template_has_no_place_for(client: OpenAI, stream: bool) -> None:
    response: Any = client.chat.completions.create(**asking(model=MODEL, max_tokens=4, temperature=0), stream=stream)

    choices = [chunk.choices[0] for chunk in response] if stream else response.choices
    assert choices[-1].finish_reason == "length"
