"""The official Ollama client against a real gateway: every call it has for models, on the embedded model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from ollama import AsyncClient, Client, ResponseError

from tests.journeys.gateway import KEY, MODEL, OFFICE_KEY, QUESTION, Gateway

OPTIONS = {"num_predict": 4, "temperature": 0, "seed": 1}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(gateway.url, timeout=60) as ollama_client:
        yield ollama_client


def test_a_chat_is_answered_whole(client: Client) -> None:
    answer = client.chat(MODEL, QUESTION, options=OPTIONS)

    assert answer.model == MODEL
    assert answer.message.role == "assistant"
    assert answer.message.content
    assert answer.done
    assert answer.done_reason == "length"
    assert answer.eval_count == 4
    assert answer.prompt_eval_count is not None
    assert answer.prompt_eval_count > 10
    assert answer.total_duration is not None
    assert answer.eval_duration is not None
    assert answer.total_duration > answer.eval_duration > 0


def test_a_chat_streams_and_says_the_same(client: Client) -> None:
    whole = client.chat(MODEL, QUESTION, options=OPTIONS)

    parts = list(client.chat(MODEL, QUESTION, options=OPTIONS, stream=True))

    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].done_reason == "length"
    assert (parts[-1].eval_count, parts[-1].prompt_eval_count) == (4, whole.prompt_eval_count)
    assert all(part.created_at for part in parts)


def test_a_text_is_generated(client: Client) -> None:
    whole = client.generate(MODEL, "Say hi.", system="Be brief.", options=OPTIONS)
    parts = list(client.generate(MODEL, "Say hi.", system="Be brief.", options=OPTIONS, stream=True))

    assert whole.response
    assert "".join(part.response or "" for part in parts) == whole.response
    assert parts[-1].done_reason == whole.done_reason == "length"


def test_a_raw_prompt_is_continued_without_the_template(client: Client) -> None:
    raw = client.generate(MODEL, "One, two, three,", raw=True, options=OPTIONS)
    chat = client.generate(MODEL, "One, two, three,", options=OPTIONS)

    assert raw.response
    assert raw.prompt_eval_count is not None
    assert chat.prompt_eval_count is not None
    assert raw.prompt_eval_count < chat.prompt_eval_count
    assert list(client.generate(MODEL, "One, two,", raw=True, options=OPTIONS, stream=True))[-1].eval_count == 4


def test_a_format_is_kept_to(client: Client) -> None:
    answer = client.chat(MODEL, QUESTION, format=CITY, options={**OPTIONS, "num_predict": 60})
    free = client.chat(MODEL, QUESTION, format="json", options={**OPTIONS, "num_predict": 60})

    raw = client.generate(MODEL, "A city:", raw=True, format=CITY, options={**OPTIONS, "num_predict": 60})

    assert isinstance(json.loads(answer.message.content or "")["city"], str)
    assert (raw.response or "").lstrip().startswith("{")
    assert (free.message.content or "").lstrip().startswith(("{", "["))


def test_probabilities_come_when_asked_for(client: Client) -> None:
    answer = client.chat(MODEL, QUESTION, options=OPTIONS, logprobs=True, top_logprobs=2)
    parts = list(client.chat(MODEL, QUESTION, options=OPTIONS, logprobs=True, top_logprobs=2, stream=True))

    assert answer.logprobs is not None
    assert len(answer.logprobs) == 4
    assert all(len(each.top_logprobs or ()) == 2 for each in answer.logprobs)
    assert sum(len(part.logprobs or ()) for part in parts) == 4


def test_tools_and_their_results_are_taken(client: Client) -> None:
    """This model's template has no place for tools, so that they are taken is all that it can show."""

    def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
          a: one
          b: the other
        """
        return a + b

    call = {"function": {"name": "add", "arguments": {"a": 7, "b": 5}}}
    messages: list[Any] = [
        *QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "add", "content": "12"},
    ]

    assert client.chat(MODEL, messages, tools=[add], options=OPTIONS).message.content


def test_an_empty_question_makes_the_model_ready(client: Client) -> None:
    assert client.generate(MODEL).done_reason == "load"
    assert client.chat(MODEL, keep_alive="5m").done_reason == "load"


def test_no_client_unloads_a_model(client: Client) -> None:
    with pytest.raises(ResponseError) as refused:
        client.generate(MODEL, keep_alive=0)

    assert refused.value.status_code == 501
    assert client.chat(MODEL, QUESTION, options=OPTIONS).message.content


def test_the_models_are_listed_shown_and_running(client: Client) -> None:
    listed = {model.model: model for model in client.list().models}
    running = [model.model for model in client.ps().models]
    shown = client.show(MODEL)

    assert MODEL in listed
    assert "fake/fake" in listed
    assert len(listed[MODEL].digest or "") == 64
    assert MODEL in running
    assert shown.details is not None


@pytest.mark.parametrize("name", [f"{MODEL}:latest", MODEL.upper(), "gpt-3.5-turbo"])
def test_a_name_has_more_than_one_spelling_and_the_answer_keeps_the_clients(client: Client, name: str) -> None:
    assert client.chat(name, QUESTION, options=OPTIONS).model == name
    assert client.show(name).modified_at


def test_vectors_come_in_their_order(client: Client) -> None:
    answer = client.embed("fake/fake", ["one", "two", "three"])
    alone = client.embeddings("fake/fake", "one")

    assert [vector[0] for vector in answer.embeddings] == [0.0, 1.0, 2.0]  # the engine numbers them
    assert alone.embedding == answer.embeddings[0]
    assert answer.model == "fake/fake"


def test_a_model_that_writes_text_says_that_it_cannot_embed(client: Client) -> None:
    with pytest.raises(ResponseError) as refused:
        client.embed(MODEL, "one")

    assert refused.value.status_code == 400


async def test_the_asynchronous_client_does_the_same(gateway: Gateway) -> None:
    async with AsyncClient(gateway.url, timeout=60) as client:
        whole = await client.chat(MODEL, QUESTION, options=OPTIONS)
        stream: Any = await client.chat(MODEL, QUESTION, options=OPTIONS, stream=True)
        text = "".join([part.message.content or "" async for part in stream])

    assert text == whole.message.content


# -- refusals


def test_an_unknown_model_is_not_found_in_ollamas_words(client: Client) -> None:
    for stream in (False, True):
        with pytest.raises(ResponseError, match=r"^model 'nope' not found") as refused:
            list(client.chat("nope", QUESTION, stream=stream))
        assert refused.value.status_code == 404


@pytest.mark.parametrize(
    "order",
    [
        lambda client: client.pull(MODEL),
        lambda client: list(client.pull(MODEL, stream=True)),
        lambda client: client.push(MODEL),
        lambda client: client.create("mine", from_=MODEL),
        lambda client: client.copy(MODEL, "mine"),
        lambda client: client.delete(MODEL),
    ],
)
def test_no_client_changes_what_is_installed(client: Client, order: Any) -> None:
    with pytest.raises(ResponseError, match="administrator") as refused:
        order(client)

    assert refused.value.status_code == 501


def test_keys_are_asked_for_as_everywhere(locked: Gateway) -> None:
    with Client(locked.url) as client, pytest.raises(ResponseError) as refused:
        client.list()
    with Client(locked.url, headers={"authorization": f"Bearer {OFFICE_KEY}"}) as client:
        listed = [model.model for model in client.list().models]
        answer = client.chat("fake", QUESTION)
        with pytest.raises(ResponseError) as hidden:
            client.chat("other", QUESTION)
    with Client(locked.url, headers={"authorization": f"Bearer {KEY}"}) as client:
        everything = [model.model for model in client.list().models]

    assert refused.value.status_code == 401
    assert listed == ["fake"]
    assert answer.message.content
    assert hidden.value.status_code == 404
    assert everything == ["fake", "other"]


# -- engines that fail


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("fake/fault:status_429_vllm", 429),
        ("fake/fault:status_503_vllm", 503),
        ("fake/fault:status_500_traceback", 502),
        ("fake/fault:accept_then_fin", 502),
        ("fake/fault:html_200", 502),
        ("fake/fault:status_400_vllm", 400),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_each_failure_has_its_status(client: Client, model: str, status: int, stream: Any) -> None:
    with pytest.raises(ResponseError) as failed:
        list(client.chat(model, QUESTION, stream=stream))

    assert failed.value.status_code == status
    assert "Traceback" not in failed.value.error


@pytest.mark.parametrize("scenario", ["reset_mid_stream", "fin_mid_stream", "error_event", "half_event_in_order"])
def test_a_stream_that_breaks_is_an_error_and_not_a_short_answer(client: Client, scenario: str) -> None:
    text = ""

    def read() -> None:
        nonlocal text
        for part in client.chat(f"fake/fault:{scenario}", QUESTION, stream=True):
            assert not part.done
            text += part.message.content or ""

    with pytest.raises(ResponseError):
        read()

    assert text == "The sum of"


def test_a_broken_stream_ends_with_an_error_line_and_a_cut_connection(gateway: Gateway) -> None:
    body = {"model": "fake/fault:fin_mid_stream", "messages": QUESTION}
    received = b""

    def read() -> None:
        nonlocal received
        with httpx.stream("POST", f"{gateway.url}/api/chat", json=body) as answer:
            for piece in answer.iter_raw():
                received += piece

    with pytest.raises(httpx.RemoteProtocolError):
        read()

    *lines, last = [json.loads(line) for line in received.splitlines()]
    assert list(last) == ["error"]
    assert all(line["done"] is False for line in lines)
