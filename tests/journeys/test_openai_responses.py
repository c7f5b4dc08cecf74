"""openai-python's responses against a real gateway: whole, streamed, with its helper, and when engines fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.journeys.gateway import KEY, MODEL, OFFICE_KEY, Gateway

STRICT = pytest.mark.parametrize("client", [False, True], ids=["lenient", "strict"], indirect=True)
ENGINES = pytest.mark.parametrize("model", [MODEL, "fake/fake"])
ADD: Any = {
    "type": "function",
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}


class City(BaseModel):
    city: str


def asking(model: str = MODEL, **more: Any) -> Any:
    """A request that costs little."""
    return {"model": model, "input": "What is 7+5?", "max_output_tokens": 4, "temperature": 0, **more}


@pytest.fixture
def client(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[OpenAI]:
    strict = getattr(request, "param", False)
    with OpenAI(
        base_url=gateway.base_url, api_key="none", max_retries=0, _strict_response_validation=strict
    ) as openai_client:
        yield openai_client


@STRICT
@ENGINES
def test_a_response_is_answered(client: OpenAI, model: str) -> None:
    answer = client.responses.create(**asking(model))

    assert answer.output_text
    assert (answer.model, answer.object, answer.status) == (model, "response", "incomplete")
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 4
    assert answer.usage.total_tokens == answer.usage.input_tokens + 4


@STRICT
@ENGINES
def test_a_response_streams_and_says_the_same(client: OpenAI, model: str) -> None:
    whole = client.responses.create(**asking(model))

    events = list(client.responses.create(**asking(model), stream=True))

    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    assert [e.sequence_number for e in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.output_text == whole.output_text
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 4


@STRICT
@ENGINES
def test_the_stream_helper_puts_the_response_together(client: OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input="What is 7+5?", temperature=0, max_output_tokens=300) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()

    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert final.output_text
    assert final.status == "completed"


def test_a_type_is_parsed(client: OpenAI) -> None:
    answer = client.responses.parse(**asking(max_output_tokens=60), text_format=City)
    with client.responses.stream(**asking(max_output_tokens=60), text_format=City) as stream:
        streamed = stream.get_final_response()

    assert isinstance(answer.output_parsed, City)
    assert isinstance(streamed.output_parsed, City)


def test_a_conversation_with_tools_is_taken(client: OpenAI) -> None:
    """This model's template has no place for tools, so that they are taken is all that it can show."""
    conversation: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "What is 7+5?"}]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 7}'},
        {"type": "function_call_output", "call_id": "c1", "output": "12"},
    ]

    assert client.responses.create(**asking(input=conversation, tools=[ADD], tool_choice="auto")).output_text


def test_what_came_out_can_go_in_again(client: OpenAI) -> None:
    first = client.responses.create(**asking())
    conversation: Any = [
        {"role": "user", "content": "What is 7+5?"},
        *first.output,
        {"role": "user", "content": "Sure?"},
    ]

    assert client.responses.create(**asking(input=conversation, instructions="Be brief.")).output_text


@STRICT
def test_probabilities_come_when_asked_for(client: OpenAI) -> None:
    answer = client.responses.create(**asking(top_logprobs=2, include=["message.output_text.logprobs"]))
    events = list(client.responses.create(**asking(top_logprobs=2), stream=True))

    (item,) = answer.output
    assert item.type == "message"
    assert item.content[0].type == "output_text"
    assert len(item.content[0].logprobs or ()) == 4
    assert sum(len(e.logprobs) for e in events if e.type == "response.output_text.delta") == 4


async def test_the_asynchronous_client_does_the_same(gateway: Gateway) -> None:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        whole = await client.responses.create(**asking())
        async with client.responses.stream(**asking()) as stream:
            text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])

    assert text == whole.output_text


@pytest.mark.parametrize(
    "more",
    [
        {"store": True},
        {"previous_response_id": "resp_1"},
        {"background": True},
        {"conversation": "conv_1"},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
    ],
)
def test_what_only_a_server_with_a_memory_can_do_is_refused(client: OpenAI, more: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match="not supported") as refused:
        client.responses.create(**asking(**more))

    assert refused.value.code == "not_supported"


def test_keys_are_asked_for_as_everywhere(locked: Gateway) -> None:
    with (
        OpenAI(base_url=locked.base_url, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.responses.create(**asking("fake"))
    with OpenAI(base_url=locked.base_url, api_key=OFFICE_KEY, max_retries=0) as client:
        assert client.responses.create(**asking("fake")).output_text
        with pytest.raises(openai.NotFoundError):
            client.responses.create(**asking("other"))
    with OpenAI(base_url=locked.base_url, api_key=KEY, max_retries=0) as client:
        assert client.responses.create(**asking("other")).output_text


@pytest.mark.parametrize(
    ("model", "error", "code"),
    [
        ("fake/fault:status_429_vllm", openai.RateLimitError, "engine_saturated"),
        ("fake/fault:status_500_traceback", openai.InternalServerError, "engine_failed"),
        ("fake/fault:accept_then_fin", openai.InternalServerError, "engine_disconnected"),
        ("fake/fault:status_400_vllm", openai.BadRequestError, "invalid_request"),
        ("nope", openai.NotFoundError, "model_not_found"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_each_failure_has_its_class(
    client: OpenAI, model: str, error: type[openai.APIStatusError], code: str, stream: Any
) -> None:
    with pytest.raises(error) as failed:
        client.responses.create(**asking(model), stream=stream)

    assert failed.value.code == code


@pytest.mark.parametrize("scenario", ["reset_mid_stream", "fin_mid_stream", "error_event", "half_event_in_order"])
def test_a_stream_that_breaks_is_an_error_and_not_a_short_answer(client: OpenAI, scenario: str) -> None:
    stream = client.responses.create(**asking(f"fake/fault:{scenario}", max_output_tokens=100), stream=True)
    text = ""

    def read() -> None:
        nonlocal text
        for event in stream:
            assert event.type not in ("response.completed", "response.incomplete")
            text += event.delta if event.type == "response.output_text.delta" else ""

    with pytest.raises(openai.APIError) as broken:
        read()

    assert text == "The sum of"
    assert broken.value.code in ("engine_disconnected", "engine_failed")


def test_a_schema_is_kept_to(client: OpenAI) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "city", "schema": City.model_json_schema()}}

    answer = client.responses.create(**asking(max_output_tokens=60, text=form))

    assert isinstance(json.loads(answer.output_text)["city"], str)
