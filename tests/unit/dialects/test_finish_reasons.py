"""Why an answer ended: one table for every engine's words, and what each dialect's client is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.dialects.openai import response as openai_response
from app.dialects.openai.normalize import StreamNormalizer
from backends.errors import Broken, EngineFailed
from backends.finish_reasons import finish
from backends.ollama.response import StreamLine
from tests.fakes.scripted import Json, Scripted
from tests.fakes.scripted import events as stream_of
from tests.fakes.scripted import whole as one_piece
from tests.rigs.read_answer import response_context
from tests.rigs.relay import Rig, backend, models, running

WHOLE = ["stop", "STOP", "eos", "eos_token", "EOS", "end_turn", "endTurn", "stop_sequence", "stop-sequence", "COMPLETE"]
WHOLE += ["FinishReason.STOP", "FINISH_REASON_STOP", "stopped_eos"]
CUT = ["length", "LENGTH", "max_tokens", "MAX_TOKENS", "maxTokens", "max_output_tokens", "max_length", "model_length"]
CUT += ["FINISH_REASON_MAX_TOKENS", "stopped_limit", "truncated", "model_context_window_exceeded"]
UNKNOWN = ["pause_turn", "whatever", "?", "OTHER", "unload", "repetition"]
FILTERED = ["content_filter", "CONTENT_FILTER", "SAFETY", "refusal", "content_filtered", "guardrail_intervened"]
CALLED = ["tool_calls", "tool_use", "TOOL_CALL", "tool_call"]
GIVEN_UP = ["error", "abort", "ABORT", "aborted", "cancelled", "ERROR", "timeout"]
BY_WORD: dict[str, list[str]] = {
    "stop": WHOLE,
    "length": [*CUT, *UNKNOWN],
    "content_filter": FILTERED,
    "tool_calls": CALLED,
}
TABLE = [(word, said) for said, words in BY_WORD.items() for word in words]
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 8}}


def answer(reason: object, operation: str = "chat") -> Json:
    said = {"message": {"role": "assistant", "content": "a"}} if operation == "chat" else {"text": "a"}
    choice = {"index": 0, **said, "finish_reason": reason}
    kind = "chat.completion" if operation == "chat" else "text_completion"
    return {"id": "c", "object": kind, "created": 1, "model": "fake", "choices": [choice], "usage": USAGE}


def pieces(reason: object, operation: str = "chat") -> list[Json]:
    """A text, then its end."""
    texts: list[Json] = [{"delta": {"role": "assistant", "content": "a"}}, {"delta": {}}]
    if operation != "chat":
        texts = [{"text": "a"}, {"text": ""}]
    kind = "chat.completion.chunk" if operation == "chat" else "text_completion"
    head = {"id": "c", "object": kind, "created": 1, "model": "fake"}
    ends = zip(texts, (None, reason), strict=True)
    told = [{**head, "choices": [{"index": 0, **text, "finish_reason": end}]} for text, end in ends]
    return [*told, {**head, "choices": [], "usage": USAGE}]


@pytest.mark.parametrize(("word", "said"), TABLE)
@pytest.mark.parametrize("operation", ["chat", "text_completion"])
def test_every_engines_word_is_one_of_openais(word: str, said: str, operation: str) -> None:
    settled, cost = openai_response.settle(
        response_context("fake", operation=operation), json.dumps(answer(word, operation)).encode()
    )
    chunk = pieces(word, operation)[1]
    StreamNormalizer(response_context("fake", operation=operation)).normalize(chunk)

    assert json.loads(settled)["choices"][0]["finish_reason"] == said == cost.finish_reason
    assert chunk["choices"][0]["finish_reason"] == said


@pytest.mark.parametrize("word", GIVEN_UP)
def test_what_an_engine_gave_up_is_a_failure(word: str) -> None:
    with pytest.raises(EngineFailed):
        openai_response.settle(response_context("fake"), json.dumps(answer(word)).encode())
    with pytest.raises(EngineFailed):
        StreamNormalizer(response_context("fake")).normalize(pieces(word)[1])


def test_a_reason_may_be_an_object_but_no_number() -> None:
    assert finish({"type": "length", "length": 9}) == "length"
    assert finish({"type": "stop", "matched": 2}) == "stop"
    with pytest.raises(Broken):
        openai_response.settle(response_context("fake"), json.dumps(answer(7)).encode())


@pytest.mark.parametrize("word", ["null", "None", "", " ", None, "FINISH_REASON_UNSPECIFIED"])
def test_a_word_for_not_finished_yet_is_no_end(word: str | None) -> None:
    normalizer = StreamNormalizer(response_context("fake"))
    for each in (word, "length"):
        chunk = pieces(each)[1]
        normalizer.normalize(chunk)

    assert chunk["choices"][0]["finish_reason"] == "length"


def test_a_daemons_word_is_looked_up_there_too() -> None:
    told = [StreamLine(done_reason=word).finish(False) for word in ("stop", "length", "LENGTH", "unload", "whatever")]

    assert told == ["stop", "length", "length", "length", "length"]
    assert StreamLine().finish(False) == "stop"
    assert StreamLine(done_reason="error").finish(False) == "error"


def test_a_daemons_calls_do_not_hide_that_the_answer_was_cut() -> None:
    assert StreamLine(done_reason="stop").finish(True) == "tool_calls"
    assert StreamLine(done_reason="length").finish(True) == "length"


# -- what the clients of each dialect are told


CHAT = {"model": "fake", "messages": [{"role": "user", "content": "x"}]}
ROUTES: dict[str, Json] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "fake", "prompt": "x"},
    "/v1/messages": {**CHAT, "max_tokens": 5},
    "/v1/responses": {"model": "fake", "input": "x"},
    "/api/chat": CHAT,
    "/api/generate": {"model": "fake", "prompt": "x"},
}
ENDS: dict[str, dict[str, str]] = {
    "/v1/messages": {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"},
    "/v1/responses": {"stop": "completed", "length": "incomplete", "content_filter": "incomplete"},
}


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Scripted]:
    async with Scripted(lambda path, body: b"") as scripted:
        yield scripted


@pytest_asyncio.fixture
async def rig(engine: Scripted) -> AsyncIterator[Rig]:
    async with running({"engine": backend(f"{engine.url}/v1", kind="remote")}, models("fake")) as gateway:
        yield gateway


def says(engine: Scripted, reason: str) -> None:
    def behave(path: str, body: Json) -> bytes:
        operation = "chat" if path.endswith("/chat/completions") else "text_completion"
        return stream_of(*pieces(reason, operation)) if body.get("stream") else one_piece(answer(reason, operation))

    engine.behave = behave


def reason_of(path: str, body: bytes, *, is_stream: bool) -> Any:
    """The reason that a client of that route reads."""
    if path.startswith("/api/"):
        return json.loads(body.splitlines()[-1])["done_reason"]
    if not is_stream:
        told = json.loads(body)
    else:
        told = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: {")]
    match path:
        case "/v1/messages":
            found = told if not is_stream else next(each["delta"] for each in told if each["type"] == "message_delta")
            return found["stop_reason"]
        case "/v1/responses":
            response = told if not is_stream else told[-1]["response"]
            assert not is_stream or told[-1]["type"] == f"response.{response['status']}"
            return response["status"]
        case _:
            choices = told["choices"] if not is_stream else [c for each in told for c in each["choices"]]
            return choices[-1]["finish_reason"]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", ROUTES)
async def test_a_cut_answer_looks_whole_in_no_dialect(
    rig: Rig, engine: Scripted, path: str, *, is_stream: bool
) -> None:
    for word in ("MAX_TOKENS", "model_length", "whatever", "SAFETY", "eos_token", "stop_sequence"):
        says(engine, word)

        reply = await rig.ask(path, {**ROUTES[path], "stream": is_stream})

        said = finish(word) or ""
        assert reply.status == 200
        assert reason_of(path, reply.body, is_stream=is_stream) == ENDS.get(path, {}).get(said, said)


@pytest.mark.parametrize("path", ROUTES)
async def test_what_was_given_up_is_an_error_in_every_dialect(rig: Rig, engine: Scripted, path: str) -> None:
    says(engine, "abort")

    whole_ = await rig.ask(path, {**ROUTES[path], "stream": False})

    assert whole_.status == 502


# -- what was read from a cache


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_cached_tokens_are_counted_as_the_dialect_counts_them(
    rig: Rig, engine: Scripted, *, is_stream: bool
) -> None:
    says(engine, "stop")

    message = await rig.ask("/v1/messages", {**ROUTES["/v1/messages"], "stream": is_stream})
    response = await rig.ask("/v1/responses", {**ROUTES["/v1/responses"], "stream": is_stream})

    if is_stream:
        used = next(
            json.loads(line[6:])["usage"]
            for line in message.body.decode().splitlines()
            if '"message_delta"' in line[6:]
        )
        told = json.loads(response.body.decode().splitlines()[-2][6:])["response"]["usage"]
    else:
        used, told = message.json["usage"], response.json["usage"]
    assert used == {
        "input_tokens": 2,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 8,
        "output_tokens": 5,
    }
    assert (told["input_tokens"], told["input_tokens_details"]["cached_tokens"]) == (10, 8)


# -- arguments that are none


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def calls(engine: Scripted, arguments: object, finish_reason: str = "tool_calls") -> None:
    """Two calls without arguments, in one piece or as a stream."""
    called = [
        {"index": at, "id": f"c{at}", "type": "function", "function": {"name": "f", "arguments": arguments}}
        for at in range(2)
    ]

    def behave(path: str, body: Json) -> bytes:
        if not body.get("stream"):
            said = answer(finish_reason)
            said["choices"][0]["message"] |= {"content": None, "tool_calls": called}
            return one_piece(said)
        told = pieces(finish_reason)
        told[0]["choices"][0]["delta"] = {"role": "assistant", "content": None, "tool_calls": called}
        return stream_of(*told)

    engine.behave = behave


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("arguments", [None, "", " ", "null", "{}"], ids=repr)
async def test_a_call_without_arguments_has_an_empty_object_of_them(
    rig: Rig, engine: Scripted, arguments: object, *, is_stream: bool
) -> None:
    calls(engine, arguments)

    chat = await rig.ask("/v1/chat/completions", {**CHAT, "tools": TOOLS, "stream": is_stream})
    response = await rig.ask("/v1/responses", {**ROUTES["/v1/responses"], "stream": is_stream})
    message = await rig.ask("/v1/messages", {**ROUTES["/v1/messages"], "stream": is_stream})
    ollamas = await rig.ask("/api/chat", {**CHAT, "stream": is_stream})

    told: dict[int, str] = {}
    if is_stream:
        events = [json.loads(line[6:]) for line in chat.body.decode().splitlines() if line.startswith("data: {")]
        for delta in (choice["delta"] for each in events for choice in each["choices"]):
            for call in delta.get("tool_calls") or ():
                told[call["index"]] = told.get(call["index"], "") + call["function"].get("arguments", "")
        last = json.loads(response.body.decode().splitlines()[-2][6:])["response"]
        stops = [line for line in message.body.decode().splitlines() if "input_json_delta" in line[6:]]
        texts = [json.loads(line[6:])["delta"]["partial_json"].strip() for line in stops]
        assert [text for text in texts if text] == ["{}", "{}"]
    else:
        entries = chat.json["choices"][0]["message"]["tool_calls"]
        told = {at: call["function"]["arguments"] for at, call in enumerate(entries)}
        last = response.json
        assert [block["input"] for block in message.json["content"]] == [{}, {}]
    assert [text.strip() for text in told.values()] == ["{}", "{}"]
    assert [item["arguments"].strip() for item in last["output"]] == ["{}", "{}"]
    lines = [json.loads(line) for line in ollamas.body.splitlines()]
    found = [call for line in lines for call in line["message"].get("tool_calls") or ()]
    assert [call["function"]["arguments"] for call in found] == [{}, {}]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_a_call_that_was_cut_before_its_arguments_does_not_look_whole(
    rig: Rig, engine: Scripted, *, is_stream: bool
) -> None:
    calls(engine, "", "max_tokens")

    chat = await rig.ask("/v1/chat/completions", {**CHAT, "tools": TOOLS, "stream": is_stream})
    ollamas = await rig.ask("/api/chat", {**CHAT, "stream": is_stream})

    assert b'"arguments":"{}"' not in chat.body
    assert b"tool_calls" not in ollamas.body


@pytest.mark.parametrize("arguments", [None, "", "null"], ids=repr)
def test_the_former_way_of_a_call_has_arguments_too(arguments: object) -> None:
    function = {"name": "f", "arguments": arguments}
    said = answer("function_call")
    said["choices"][0]["message"] |= {"content": None, "function_call": dict(function)}
    told = pieces("function_call")
    told[0]["choices"][0]["delta"] = {"role": "assistant", "content": None, "function_call": dict(function)}
    normalizer = StreamNormalizer(response_context("fake"))
    for chunk in told:
        normalizer.normalize(chunk)

    settled = json.loads(openai_response.settle(response_context("fake"), json.dumps(said).encode())[0])
    deltas = [choice["delta"] for chunk in told for choice in chunk["choices"]]
    assert settled["choices"][0]["message"]["function_call"]["arguments"] == "{}"
    assert "".join(delta["function_call"]["arguments"] for delta in deltas if "function_call" in delta) == "{}"


# -- how long a conversation is


async def test_pictures_are_looked_for_in_messages_only(engine: Scripted) -> None:
    """A tool may have a parameter of that name."""
    schema = {"type": "object", "properties": {"image_url": {"type": "string"}}, "required": ["image_url"]}
    tools = [{"name": "look", "description": "image_url", "input_schema": schema}]
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    said = [{"role": "user", "content": 'what is "image_url"?'}]
    seen = [{"role": "user", "content": [picture, {"type": "text", "text": "?"}]}]
    engine.behave = lambda path, body: one_piece({"count": 7, "max_model_len": 9, "tokens": [1] * 7})
    async with running({"engine": backend(f"{engine.url}/v1", kind="vllm")}, models("fake")) as gateway:
        path = "/v1/messages/count_tokens"

        counted = await gateway.ask(path, {"model": "fake", "messages": said, "tools": tools})
        refused = await gateway.ask(path, {"model": "fake", "messages": seen})

    assert (counted.status, counted.json) == (200, {"input_tokens": 7})
    assert refused.status == 501
