"""anthropic-python against a real gateway: messages, streams, counts, and every failure the SDK has a class for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message

from tests.journeys.gateway import KEY, MODEL, OFFICE_KEY, QUESTION, Gateway

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
ADD: Any = {
    "name": "add",
    "description": "Adds.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}


def asking(model: str = MODEL, **more: Any) -> Any:
    """A request that costs little."""
    return {"model": model, "messages": QUESTION, "max_tokens": 4, "extra_body": {"temperature": 0}, **more}


@pytest.fixture
def client(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[Anthropic]:
    with Anthropic(
        base_url=gateway.url,
        api_key="none",
        max_retries=0,
        _strict_response_validation=getattr(request, "param", False),
    ) as anthropic_client:
        yield anthropic_client


STRICT = pytest.mark.parametrize("client", [False, True], ids=["lenient", "strict"], indirect=True)
ENGINES = pytest.mark.parametrize("model", [MODEL, "fake/fake"])


def prompt_tokens(message: Message) -> int:
    """Tokens of the prompt; those that the engine had in its cache are counted by themselves."""
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


@STRICT
@ENGINES
def test_a_message_is_answered(client: Anthropic, model: str) -> None:
    answer = client.messages.create(**asking(model))

    (block,) = answer.content
    assert block.type == "text"
    assert block.text
    assert (answer.model, answer.role, answer.stop_reason) == (model, "assistant", "max_tokens")
    assert answer.id.startswith("msg_")
    assert prompt_tokens(answer) > 10
    assert answer.usage.output_tokens == 4


@STRICT
@ENGINES
def test_a_message_streams_and_says_the_same(client: Anthropic, model: str) -> None:
    whole = client.messages.create(**asking(model))

    with client.messages.stream(**asking(model)) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert whole.content[0].type == "text"
    assert text == whole.content[0].text
    assert [block.type for block in final.content] == ["text"]
    assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 4)
    assert prompt_tokens(final) == prompt_tokens(whole)


@STRICT
def test_the_raw_events_come_in_their_order(client: Anthropic) -> None:
    kinds = [event.type for event in client.messages.create(**asking(), stream=True)]

    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_what_the_system_says_counts(client: Anthropic) -> None:
    plain = client.messages.create(**asking(system="Be brief."))
    blocks = client.messages.create(**asking(system=[{"type": "text", "text": "Be brief."}]))

    assert plain.content == blocks.content
    assert prompt_tokens(plain) == prompt_tokens(blocks)


def test_tools_and_their_results_are_taken(client: Anthropic) -> None:
    """This model's template has no place for tools, so that they are taken is all that it can show."""
    messages = [
        *QUESTION,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 7}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "12"}]},
    ]

    answer = client.messages.create(**asking(messages=messages, tools=[ADD], tool_choice={"type": "auto"}))

    assert answer.content


def test_a_schema_is_kept_to(client: Anthropic) -> None:
    form: Any = {"format": {"type": "json_schema", "schema": CITY}}

    answer = client.messages.create(**asking(max_tokens=60), output_config=form)

    assert answer.content[0].type == "text"
    assert isinstance(json.loads(answer.content[0].text)["city"], str)


def test_a_stop_sequence_ends_the_answer(client: Anthropic) -> None:
    answer = client.messages.create(**asking(max_tokens=100, stop_sequences=["."]))

    assert answer.stop_reason in ("end_turn", "stop_sequence")  # which one it was, llama.cpp does not tell
    assert "." not in str(answer.content)


def test_the_beginning_of_an_answer_is_gone_on_with(client: Anthropic) -> None:
    begun = [*QUESTION, {"role": "assistant", "content": "The answer is"}]

    answer = client.messages.create(**asking(messages=begun))

    assert answer.content


@STRICT
def test_tokens_are_counted_as_they_will_be(client: Anthropic) -> None:
    for more in ({}, {"system": "Be brief."}):
        counted = client.messages.count_tokens(model=MODEL, messages=QUESTION, **more)  # type: ignore[arg-type]
        answer = client.messages.create(**asking(**more))

        assert counted.input_tokens == prompt_tokens(answer)


def test_an_engine_that_cannot_count_says_so(client: Anthropic) -> None:
    with pytest.raises(anthropic.InternalServerError, match="cannot count") as refused:
        client.messages.count_tokens(model="fake/fake", messages=QUESTION)  # type: ignore[arg-type]

    assert refused.value.status_code == 501


async def test_the_asynchronous_client_does_the_same(gateway: Gateway) -> None:
    async with AsyncAnthropic(base_url=gateway.url, api_key="none", max_retries=0) as client:
        whole = await client.messages.create(**asking())
        async with client.messages.stream(**asking()) as stream:
            final = await stream.get_final_message()

    assert final.content[0].type == whole.content[0].type == "text"
    assert final.content[0].text == whole.content[0].text


# -- keys


def test_a_key_comes_in_either_header(locked: Gateway) -> None:
    with Anthropic(base_url=locked.url, api_key=OFFICE_KEY, max_retries=0) as client:
        assert client.messages.create(**asking("fake")).content
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**asking("other"))
    with Anthropic(base_url=locked.url, auth_token=KEY, max_retries=0) as client:
        assert client.messages.create(**asking("other")).content
    with (
        Anthropic(base_url=locked.url, api_key="wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError) as refused,
    ):
        client.messages.create(**asking("fake"))

    assert refused.value.type == "authentication_error"


# -- failures


@pytest.mark.parametrize(
    ("model", "error", "status", "type_"),
    [
        ("fake/fault:status_429_vllm", anthropic.RateLimitError, 429, "rate_limit_error"),
        ("fake/fault:status_503_vllm", anthropic.ServiceUnavailableError, 503, "overloaded_error"),
        ("fake/fault:status_500_traceback", anthropic.InternalServerError, 502, "api_error"),
        ("fake/fault:accept_then_fin", anthropic.InternalServerError, 502, "api_error"),
        ("hasty/fault:never_answers", anthropic.InternalServerError, 504, "timeout_error"),
        ("fake/fault:status_400_vllm", anthropic.BadRequestError, 400, "invalid_request_error"),
        ("nope", anthropic.NotFoundError, 404, "not_found_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_each_failure_has_its_class(
    client: Anthropic, model: str, error: type[anthropic.APIStatusError], status: int, type_: str, stream: Any
) -> None:
    with pytest.raises(anthropic.APIStatusError) as failed:
        client.messages.create(**asking(model), stream=stream)

    assert isinstance(failed.value, error)
    assert (failed.value.status_code, failed.value.type) == (status, type_)


@pytest.mark.parametrize("scenario", ["reset_mid_stream", "fin_mid_stream", "error_event", "half_event_in_order"])
def test_a_stream_that_breaks_is_an_error_and_not_a_short_answer(client: Anthropic, scenario: str) -> None:
    text = ""

    def read() -> None:
        nonlocal text
        with client.messages.stream(**asking(f"fake/fault:{scenario}", max_tokens=100)) as stream:
            for piece in stream.text_stream:
                text += piece

    with pytest.raises(anthropic.APIError):
        read()

    assert text == "The sum of"
