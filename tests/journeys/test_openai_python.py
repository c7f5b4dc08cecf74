"""openai-python, current, against a real gateway: the embedded model, and every failure the SDK has a class for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.journeys.gateway import KEY, MODEL, OFFICE_KEY, QUESTION, Fake, Gateway

# `strict`: the SDK checks every answer against its own types instead of taking what comes.
STRICT = pytest.mark.parametrize("client", [False, True], ids=["lenient", "strict"], indirect=True)
# The embedded engine and vLLM's recorded answers.
ENGINES = pytest.mark.parametrize("model", [MODEL, "fake/fake"])
SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}},
    "required": ["sum"],
    "additionalProperties": False,
}


def asking(model: str, **more: Any) -> Any:
    """A chat request that costs little."""
    return {"model": model, "messages": QUESTION, "max_tokens": 4, "temperature": 0, **more}


@pytest.fixture
def client(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[OpenAI]:
    """No retries; strict when a test asks for it."""
    strict = getattr(request, "param", False)
    with OpenAI(
        base_url=gateway.base_url, api_key="none", max_retries=0, _strict_response_validation=strict
    ) as openai_client:
        yield openai_client


# -- answers


@STRICT
@ENGINES
def test_a_chat_is_answered_under_the_clients_own_name_for_the_model(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(**asking(model))

    assert answer.model == model
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= 4


def test_an_alias_is_answered_as_an_alias(client: OpenAI) -> None:
    answer = client.chat.completions.create(**asking("gpt-3.5-turbo"))

    assert answer.model == "gpt-3.5-turbo"


@STRICT
@ENGINES
def test_a_stream_without_usage_has_none(client: OpenAI, model: str) -> None:
    chunks = list(client.chat.completions.create(**asking(model), stream=True))

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert {chunk.model for chunk in chunks} == {model}
    assert all(chunk.usage is None for chunk in chunks)


@STRICT
@ENGINES
def test_a_stream_with_usage_ends_with_it(client: OpenAI, model: str) -> None:
    chunks = list(client.chat.completions.create(**asking(model), stream=True, stream_options={"include_usage": True}))

    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert 1 <= chunks[-1].usage.completion_tokens <= 4


@STRICT
@ENGINES
def test_the_stream_helper_puts_the_answer_together(client: OpenAI, model: str) -> None:
    # It takes an answer that was cut at max_tokens for an error, so this one is let end.
    with client.chat.completions.stream(**asking(model, max_tokens=200, stop=["\n"])) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_completion()

    assert kinds.count("content.done") == 1
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


@STRICT
@ENGINES
def test_a_text_is_completed(client: OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt="One, two,", max_tokens=4)

    assert answer.object == "text_completion"
    assert answer.choices[0].text


def test_a_text_is_completed_as_a_stream(client: OpenAI) -> None:
    pieces = list(client.completions.create(model=MODEL, prompt="One, two,", max_tokens=4, stream=True))

    assert "".join(piece.choices[0].text for piece in pieces)
    assert pieces[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("client", [True], ids=["strict"], indirect=True)
def test_strict_validation_refuses_the_null_finish_reason_of_streamed_completions(client: OpenAI) -> None:
    """The SDK's type has no null there; every engine, OpenAI's own included, sends it (docs/wire.md)."""
    with pytest.raises(openai.APIResponseValidationError):
        list(client.completions.create(model=MODEL, prompt="One, two,", max_tokens=4, stream=True))


@STRICT
def test_a_schema_is_kept_to(client: OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA, "strict": True}}

    answer = client.chat.completions.create(**asking(MODEL, max_tokens=60), response_format=form)

    assert isinstance(json.loads(answer.choices[0].message.content or "")["sum"], int)


@STRICT
@pytest.mark.parametrize("stream", [False, True])
def test_probabilities_come_when_asked_for(client: OpenAI, stream: bool) -> None:
    response: Any = client.chat.completions.create(**asking(MODEL), stream=stream, logprobs=True, top_logprobs=2)

    choices = [chunk.choices[0] for chunk in response] if stream else response.choices
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content or ()]
    assert tokens
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)


@STRICT
def test_the_models_are_listed_and_found(client: OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    one = client.models.retrieve("gpt-3.5-turbo")

    assert MODEL in listed
    assert "fake/fake" in listed
    assert one.id == MODEL


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
async def test_the_asynchronous_client_does_the_same(gateway: Gateway, strict: bool) -> None:
    async with AsyncOpenAI(
        base_url=gateway.base_url, api_key="none", max_retries=0, _strict_response_validation=strict
    ) as client:
        answer = await client.chat.completions.create(**asking(MODEL))
        stream = await client.chat.completions.create(**asking(MODEL), stream=True)
        chunks = [chunk async for chunk in stream]
        listed = [model.id async for model in client.models.list()]
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(**asking("nobody"))

    assert answer.choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert MODEL in listed


# -- refusals


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(**asking("smollm"))

    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"
    assert MODEL in refused.value.message


def test_a_bad_request_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**asking(MODEL, messages="hello"))

    assert (refused.value.param, refused.value.code) == ("messages", "invalid_type")


def test_a_wrong_key_is_not_let_in(locked: Gateway) -> None:
    with (
        OpenAI(base_url=locked.base_url, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.models.list()

    assert refused.value.code == "invalid_api_key"


def test_a_key_opens_its_own_models_only(locked: Gateway) -> None:
    with OpenAI(base_url=locked.base_url, api_key=OFFICE_KEY, max_retries=0) as client:
        listed = [model.id for model in client.models.list()]
        answer = client.chat.completions.create(**asking("fake"))
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**asking("other"))
    with OpenAI(base_url=locked.base_url, api_key=KEY, max_retries=0) as client:
        everything = [model.id for model in client.models.list()]

    assert listed == ["fake"]
    assert answer.choices[0].message.content
    assert everything == ["fake", "other"]


# -- engines that fail


@pytest.mark.parametrize(
    ("model", "error", "status", "code"),
    [
        ("fake/fault:status_429_vllm", openai.RateLimitError, 429, "engine_saturated"),
        ("fake/fault:status_503_vllm", openai.InternalServerError, 503, "engine_not_ready"),
        ("fake/fault:status_500_traceback", openai.InternalServerError, 502, "engine_failed"),
        ("fake/fault:accept_then_fin", openai.InternalServerError, 502, "engine_disconnected"),
        ("fake/fault:html_200", openai.InternalServerError, 502, "engine_broken_answer"),
        ("hasty/fault:never_answers", openai.InternalServerError, 504, "engine_timeout"),
        ("fake/fault:status_400_vllm", openai.BadRequestError, 400, "invalid_request"),
        ("fake/fault:status_404_vllm", openai.NotFoundError, 404, "model_not_found"),
    ],
)
def test_each_failure_has_its_class(
    client: OpenAI, model: str, error: type[openai.APIStatusError], status: int, code: str
) -> None:
    with pytest.raises(error) as failed:
        client.chat.completions.create(**asking(model))

    assert failed.value.status_code == status
    assert failed.value.code == code
    assert failed.value.request_id
    assert "Traceback" not in failed.value.message


@pytest.mark.parametrize("scenario", ["reset_mid_stream", "fin_mid_stream", "error_event", "half_event_in_order"])
def test_a_stream_that_breaks_is_an_error_and_not_a_short_answer(client: OpenAI, scenario: str) -> None:
    stream = client.chat.completions.create(**asking(f"fake/fault:{scenario}"), stream=True)
    text = ""

    def read() -> None:
        nonlocal text
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""

    with pytest.raises(openai.APIError) as broken:
        read()

    assert text == "The sum of"
    assert broken.value.code in ("engine_disconnected", "engine_failed")


# -- the SDK's own retries


class Hurried(OpenAI):
    """Computes the time to the next try as always, notes it, and does not wait."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(base_url=gateway.base_url, api_key="none", max_retries=2)
        self.waits: list[float] = []

    def _calculate_retry_timeout(self, *args: Any, **named: Any) -> float:
        self.waits.append(super()._calculate_retry_timeout(*args, **named))
        return 0.0


@pytest.mark.parametrize(
    ("scenario", "waits"),
    [
        ("status_429_vllm", [7.0, 7.0]),  # not taken: the engine's own Retry-After, and not the SDK's half a second
        ("status_503_vllm", [7.0, 7.0]),
        ("status_500_vllm", []),  # it may have taken the request, so the SDK must not send it again
        ("accept_then_fin", []),
        ("status_400_vllm", []),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_sdk_tries_again_exactly_what_no_engine_has_taken(
    gateway: Gateway, fake: Fake, scenario: str, waits: list[float], stream: bool
) -> None:
    request_id = uuid.uuid4().hex

    with Hurried(gateway) as client, pytest.raises(openai.APIStatusError):
        client.chat.completions.create(
            **asking(f"fake/fault:{scenario}"), stream=stream, extra_headers={"x-request-id": request_id}
        )

    assert client.waits == waits
    assert len(fake.requests(request_id)) == 1 + len(waits)
