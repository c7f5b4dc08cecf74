"""An engine that has computed NaN fails, in every dialect and on every route: it is not the client who is wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from app.dialects.openai.finite import REFUSAL, are_numbers
from app.dialects.openai.response import settle
from app.dialects.openai.stream_reader import DONE, StreamReader
from app.table import Limits
from backends.errors import NotFinite
from tests.fakes import wire
from tests.fakes.scripted import Scripted, events, whole
from tests.rigs.read_answer import response_context
from tests.rigs.relay import backend, models, running

MESSAGES = [{"role": "user", "content": "hi"}]
INPUT = {"model": "fake", "input": "hi", "query": "q", "documents": ["a"], "text_1": "q", "text_2": ["a"]}
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "logprobs": True},
    "/v1/completions": {"prompt": "hi", "logprobs": 1},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 9},
    "/api/chat": {"messages": MESSAGES},
    "/api/generate": {"prompt": "hi"},
    "/v1/embeddings": {"input": "hi"},
    "/v1/rerank": {"query": "q", "documents": ["a"]},
    "/v1/score": {"text_1": "q", "text_2": ["a"]},
}
REFUSED = {"error": {"message": REFUSAL, "type": "BadRequestError", "param": None, "code": 400}}
SAID = "what it computed for this answer are no numbers (NaN or infinity)"


def entry(token: str, logprob: float | None) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()), "top_logprobs": []}


def chat_chunk(text: str, *values: float | None, finish: str | None = None) -> dict[str, Any]:
    """As vLLM writes it."""
    logprobs = {"content": [entry(text, value) for value in values]}
    choice = {"index": 0, "delta": {"content": text}, "logprobs": logprobs, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "n", "choices": [choice]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ROUTES)
async def test_its_refusal_is_a_failure_of_the_engine(path: str, stream: bool) -> None:
    """vLLM says 400 "Out of range float values are not JSON compliant"."""
    body = {"model": "fake", **ROUTES[path], **({"stream": stream} if "embed" not in path else {})}
    async with (
        Scripted(lambda _path, _body: whole(REFUSED, 400)) as engine,
        running({"engine": backend(engine.url, generation=3)}, models("fake"), Limits(hold_s=9)) as gateway,
    ):
        reply = await gateway.ask(path, body)
        await gateway.fleet.until(lambda: bool(gateway.fleet.suspected))

        assert reply.status == 502
        assert SAID in reply.body.decode()
        assert gateway.fleet.suspected[0] == ("engine", 3)
        assert gateway.fleet.failed == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses"])
async def test_a_stream_that_begins_with_no_number_has_its_status(path: str) -> None:
    body = {"model": "fake", **ROUTES[path], "stream": True, "logprobs": True}
    async with (
        Scripted(lambda _path, _body: events(chat_chunk("<eos>", None))) as engine,
        running({"engine": backend(engine.url)}, models("fake"), Limits(hold_s=9)) as gateway,
    ):
        reply = await gateway.ask(path, body)

        assert (reply.status, SAID in reply.body.decode()) == (502, True)


def read(*chunks: dict[str, Any], operation: str = "chat") -> tuple[bytes, StreamReader]:
    reader = StreamReader(response_context(operation=operation), hides_usage=False, max_event_bytes=1 << 20)
    return b"".join(reader.feed(wire.sse(chunk)) for chunk in chunks), reader


@pytest.mark.parametrize("sound", [0, 1, 2, 10])
def test_one_in_the_middle_ends_the_stream_behind_what_is_sound(sound: int) -> None:
    """By then such events are known by their bytes and not decoded any more."""
    good = [chat_chunk(f"{at} ", -0.5) for at in range(sound)]

    passed, reader = read(*good, chat_chunk("x", None), chat_chunk("y", -0.5))

    assert isinstance(reader.error, NotFinite)
    assert passed.count(b'"logprob":-0.5') == sound
    assert b'"logprob":null' not in passed


def test_a_token_that_is_called_null_is_a_token() -> None:
    chunks = [chat_chunk(text, -0.5) for text in ("one", "two", "null", "four")]

    passed, reader = read(*chunks, chat_chunk("", finish="stop"))

    assert reader.error is None
    assert re.findall(rb'"content":"(\w+)"', passed) == [b"one", b"two", b"null", b"four"]
    assert reader.end() == DONE


def completion(values: list[float | None], tops: list[dict[str, float | None] | None]) -> dict[str, Any]:
    tokens = [f"t{at}" for at in range(len(values))]
    logprobs = {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": tops,
        "text_offset": list(range(len(tokens))),
    }
    choice = {"index": 0, "text": "".join(tokens), "logprobs": logprobs, "finish_reason": "length"}
    return {"id": "c", "object": "text_completion", "created": 5, "model": "n", "choices": [choice]}


COMPLETIONS: dict[str, tuple[list[float | None], list[dict[str, float | None] | None], bool]] = {
    "sound": ([-0.5], [{"t0": -0.5}], True),
    "an echoed prompt, whose first token has none": ([None, -0.5], [None, {"t1": -0.5}], True),
    "none at all": ([None], [{"t0": None}], False),
    "none behind the first": ([None, None], [None, None], False),
    "none among the others": ([-0.5], [{"t0": -0.5, "x": None}], False),
}


@pytest.mark.parametrize("case", COMPLETIONS)
def test_a_completion_is_judged_by_its_lists(case: str) -> None:
    values, tops, is_sound = COMPLETIONS[case]
    answer = completion(values, tops)

    passed, reader = read(answer, operation="completions")

    assert are_numbers(answer["choices"][0]["logprobs"]) is is_sound
    assert (reader.error is None, bool(passed)) == (is_sound, is_sound)
    if is_sound:
        assert json.loads(settle(response_context(operation="completions"), json.dumps(answer).encode())[0])
    else:
        with pytest.raises(NotFinite, match="are no numbers"):
            settle(response_context(operation="completions"), json.dumps(answer).encode())


@pytest.mark.parametrize("logprobs", [None, [], "x", {}, {"content": None}, {"content": [1]}, {"token_logprobs": []}])
def test_what_has_no_log_probabilities_is_not_judged(logprobs: Any) -> None:
    assert are_numbers(logprobs)
