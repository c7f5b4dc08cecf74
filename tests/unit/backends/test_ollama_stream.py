"""The daemon's streams as OpenAI's: the same events wherever they are cut, and every way in which one can end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.dialects.openai.chunk_encoder import ChunkEncoder
from app.dialects.openai.normalize import ResponseContext
from app.dialects.openai.response import settle
from app.dialects.openai.stream_reader import StreamReader
from backends.errors import BackendError, Broken, Disconnected, EngineFailed
from backends.http.exchange import ResponseTimings
from backends.ollama.request import OllamaRequest
from backends.ollama.response import ResponseHead, whole
from backends.ollama.stream import OllamaStreamReader
from backends.prompt_too_long import TooLong
from tests.rigs.read_answer import response_context
from tests.rigs.transcripts import transcripts

STREAMS = {
    one.name: one.answer.encode()
    for one in transcripts().values()
    if one.type == "application/x-ndjson" and one.path in ("/api/chat", "/api/generate")
}
DONE = b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":2}\n'
HI = b'{"model":"m","message":{"role":"assistant","content":"hi"},"done":false}\n'


class AsOpenai:
    """A daemon's stream as a client gets it that speaks OpenAI."""

    def __init__(self, reader: OllamaStreamReader, encoder: ChunkEncoder) -> None:
        self._reader = reader
        self._encoder = encoder

    @property
    def error(self) -> BackendError | None:
        return self._reader.error

    @property
    def timings(self) -> ResponseTimings:
        return self._reader.timings

    def feed(self, data: bytes) -> bytes:
        return b"".join(map(self._encoder.next, self._reader.feed(data)))

    def end(self) -> bytes:
        return b"".join(map(self._encoder.next, self._reader.end()))


def stream(*, operation: str = "chat", wants_usage: bool = True, most: int = 1 << 20, num_ctx: int = 64) -> AsOpenai:
    path = "/api/chat" if operation == "chat" else "/api/generate"
    asked = OllamaRequest(operation, path, b"", "mine", is_stream=True, wants_usage=wants_usage, num_ctx=num_ctx)
    context = ResponseContext("ollama", "mine", operation, "1", 1795334422)
    reader = OllamaStreamReader(ResponseHead("ollama", asked, "chatcmpl-1", 1795334422), most)
    return AsOpenai(reader, ChunkEncoder(context, hides_usage=False))


def fed(reader: AsOpenai, *pieces: bytes) -> tuple[bytes, str | None]:
    """All events, and what ended the stream when that was an error."""
    events = b"".join(reader.feed(piece) for piece in pieces)
    try:
        if reader.error is not None:
            raise reader.error
        return events + reader.end(), None
    except BackendError as exc:
        return events, f"{type(exc).__name__}: {exc.message}"


def chunks(events: bytes) -> list[Any]:
    return [json.loads(event[6:]) if event != b"data: [DONE]" else "[DONE]" for event in events.split(b"\n\n") if event]


def operation_of(name: str) -> str:
    return "text_completion" if "generate" in name else "chat"


def test_there_are_streams_to_cut() -> None:
    assert {"021_chat_stream", "041_generate_stream", "203_chat_tools_stream", "230_chat_stream_runner_killed"} <= set(
        STREAMS
    )


@pytest.mark.parametrize("name", STREAMS)
def test_every_recorded_stream_cut_anywhere_gives_the_same_events(name: str) -> None:
    data, operation = STREAMS[name], operation_of(name)
    whole = fed(stream(operation=operation), data)

    for cut in range(1, len(data)):
        assert fed(stream(operation=operation), data[:cut], data[cut:]) == whole, cut
    assert fed(stream(operation=operation), *(data[at : at + 1] for at in range(len(data)))) == whole


def test_a_recorded_chat_reads_as_openais() -> None:
    events, failure = fed(stream(), STREAMS["021_chat_stream"])

    assert failure is None
    *texts, finish, usage, done = chunks(events)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in texts) == "Hello there. I'm here to help"
    assert texts[0]["choices"][0]["delta"] == {"role": "assistant", "content": "Hello"}
    assert not any("role" in chunk["choices"][0]["delta"] for chunk in texts[1:])
    assert finish["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20}
    assert done == "[DONE]"
    every = [*texts, finish, usage]
    assert {(c["id"], c["object"], c["created"], c["model"]) for c in every} == {
        ("chatcmpl-1", "chat.completion.chunk", 1795334422, "mine")
    }


def test_a_recorded_tool_call_has_index_id_type_and_text_arguments() -> None:
    events, _ = fed(stream(wants_usage=False), STREAMS["203_chat_tools_stream"])

    first, finish, done = chunks(events)
    function = {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    call = {"index": 0, "id": "call_lrc1lk19", "type": "function", "function": function}
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert finish["choices"][0]["finish_reason"] == "tool_calls"
    assert done == "[DONE]"


def test_calls_are_numbered_over_the_whole_stream_and_have_an_id_each() -> None:
    line = b'{"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":"\\u00e9"}}}]}}\n'

    events, _ = fed(stream(wants_usage=False), line + line + DONE)

    calls = [call for chunk in chunks(events)[:2] for call in chunk["choices"][0]["delta"]["tool_calls"]]
    assert [call["index"] for call in calls] == [0, 1]
    assert len({call["id"] for call in calls}) == 2
    assert json.loads(calls[0]["function"]["arguments"]) == {"a": "é"}


@pytest.mark.parametrize("arguments", ['""', '" "', '"null"', "null", "{}"])
def test_a_call_without_arguments_has_an_empty_object(arguments: str) -> None:
    line = b'{"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":%b}}]}}\n' % arguments.encode()

    events, _ = fed(stream(wants_usage=False), line + DONE)

    (call,) = chunks(events)[0]["choices"][0]["delta"]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": "{}"}


def test_thinking_has_both_of_its_names() -> None:
    thought = b'{"message":{"role":"assistant","content":"","thinking":"Let me"}}\n'

    events, _ = fed(stream(wants_usage=False), thought + HI + DONE)

    first, second, *_ = chunks(events)
    delta = {"role": "assistant", "content": "", "reasoning": "Let me", "reasoning_content": "Let me"}
    assert first["choices"][0]["delta"] == delta
    assert second["choices"][0]["delta"] == {"content": "hi"}


def test_a_completion_has_texts_and_logprobs_side_by_side() -> None:
    line = b'{"response":"ab","logprobs":[{"token":"a","logprob":-1,"top_logprobs":[{"token":"b","logprob":-2}]},'
    line += b'{"token":"b","logprob":-3}]}\n'

    events, _ = fed(stream(operation="text_completion", wants_usage=False), line + DONE)

    first, finish, _done = chunks(events)
    assert first["object"] == "text_completion"
    assert first["choices"][0] == {
        "index": 0,
        "text": "ab",
        "finish_reason": None,
        "logprobs": {
            "tokens": ["a", "b"],
            "token_logprobs": [-1, -3],
            "top_logprobs": [{"b": -2, "a": -1}, {"b": -3}],
            "text_offset": [0, 1],
        },
    }
    assert finish["choices"][0] == {"index": 0, "text": "", "finish_reason": "stop"}


def test_offsets_of_a_completions_tokens_go_on_from_line_to_line() -> None:
    line = b'{"response":"ab","logprobs":[{"token":"ab","logprob":-1}]}\n'

    events, _ = fed(stream(operation="text_completion", wants_usage=False), line + line + DONE)

    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks(events)[:2]] == [[0], [2]]


def test_offsets_are_the_same_whole_and_in_a_stream() -> None:
    """Also of tokens that are parts of a character, or that have no text."""
    tokens = [{"token": "�", "bytes": [226]}, {"token": "�", "bytes": [130, 172]}, {"token": "b", "bytes": [98]}, {}]
    value = {"response": "€b", "done": True, "done_reason": "stop", "logprobs": tokens}
    body = json.dumps(value).encode()

    events, _ = fed(stream(operation="text_completion", wants_usage=False), body + b"\n")
    put_together, _ = whole(ResponseHead("ollama", OllamaRequest("text_completion", "", b"", "mine"), "id-1", 1), body)
    settled, _ = settle(response_context(operation="text_completion"), put_together)

    in_whole = json.loads(settled)["choices"][0]["logprobs"]
    assert in_whole == chunks(events)[0]["choices"][0]["logprobs"]
    assert (in_whole["text_offset"], in_whole["tokens"]) == ([0, 0, 1, 2], ["�", "�", "b", ""])


def test_an_answer_of_nothing_has_a_role_all_the_same() -> None:
    first, finish, _done = chunks(fed(stream(wants_usage=False), DONE)[0])

    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert finish["choices"][0]["finish_reason"] == "stop"


def test_what_comes_behind_the_last_line_is_no_part_of_the_answer() -> None:
    assert fed(stream(), HI + DONE, HI)[0] == fed(stream(), HI + DONE + HI)[0] == fed(stream(), HI + DONE)[0]


def test_a_last_line_without_its_end_counts() -> None:
    assert fed(stream(), HI + DONE.rstrip())[0] == fed(stream(), HI + DONE)[0]


NESTED = json.dumps({"error": json.dumps({"error": {"code": 500, "message": "no memory for\nthe cache"}})}).encode()
LONG = {"code": 400, "message": "x", "type": "exceed_context_size_error", "n_prompt_tokens": 130, "n_ctx": 64}
ENDINGS: dict[str, tuple[bytes, type[BackendError], str]] = {
    "an error line": (b'{"error":"it died"}\n', EngineFailed, "it died"),
    "an error without its end": (b'{"error":"it died"}', EngineFailed, "it died"),
    "JSON in a string": (NESTED + b"\n", EngineFailed, "no memory for the cache"),
    "a path": (b'{"error":"open /root/.ollama/x: no"}\n', EngineFailed, "open …: no"),
    "nothing more": (b"", Disconnected, "its stream ended before the answer was finished"),
    "half a line": (HI[:30], Broken, "it sent what is not an answer of Ollama's"),
    "no JSON": (b"<html>\n", Broken, "it sent what is not an answer of Ollama's"),
    "another shape": (b'{"message":7}\n', Broken, "it sent what is not an answer of Ollama's"),
    "a call without a name": (
        b'{"message":{"tool_calls":[{"function":{}}]}}\n',
        Broken,
        "it sent a tool call without a name",
    ),
    "too long": (
        json.dumps({"error": json.dumps({"error": LONG})}).encode() + b"\n",
        TooLong,
        "This model's maximum context length is 64 tokens, and the request has 130. Shorten it, or raise `num_ctx` of "
        "the backend.",
    ),
}


@pytest.mark.parametrize(("rest", "kind", "message"), ENDINGS.values(), ids=ENDINGS)
def test_a_stream_that_goes_wrong_gives_what_came_whole_and_then_its_error(
    rest: bytes, kind: type[BackendError], message: str
) -> None:
    for cut in range(len(rest) + 1):
        events, failure = fed(stream(), HI + HI, rest[:cut], rest[cut:])

        assert failure == f"{kind.__name__}: {message}"
        assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks(events)] == ["hi", "hi"]
        assert b"[DONE]" not in events


def test_events_before_an_error_in_the_same_piece_still_come() -> None:
    reader = stream()

    assert reader.feed(HI + b'{"error":"x"}\n' + HI).count(b"data:") == 1
    assert isinstance(reader.error, EngineFailed)
    assert reader.feed(HI) == b""


def test_a_line_without_end_is_refused() -> None:
    reader = stream(most=100)

    reader.feed(b"x" * 101)

    assert isinstance(reader.error, Broken)


def test_times_are_known_at_the_end() -> None:
    reader = stream()

    fed(reader, STREAMS["021_chat_stream"])

    assert (reader.timings.load_s, reader.timings.prompt_s, reader.timings.generate_s) == pytest.approx(
        (0.000785, 0.007509, 0.046348), rel=1e-3
    )
    assert set(reader.timings.headers()) == {"x-modelport-load-ms", "x-modelport-prompt-ms", "x-modelport-generate-ms"}


# -- the daemon's `/v1`, read as any OpenAI engine's


V1_STREAMS = {
    one.name: one.answer.encode()
    for one in transcripts().values()
    if one.type == "text/event-stream" and one.path in ("/v1/chat/completions", "/v1/completions")
}


def read(*pieces: bytes) -> tuple[bytes, Any, str | None]:
    """What the relay passes on, what it counts, and what ended it."""
    reader = StreamReader(response_context(), hides_usage=False, max_event_bytes=1 << 20)
    events = b"".join(reader.feed(piece) for piece in pieces)
    try:
        return events + reader.end(), reader.settle(), None
    except BackendError as exc:
        return events, reader.settle(), type(exc).__name__


@pytest.mark.parametrize("name", V1_STREAMS)
def test_every_recorded_stream_of_events_cut_anywhere_is_read_the_same(name: str) -> None:
    data = V1_STREAMS[name]
    whole = read(data)

    for cut in range(1, len(data)):
        assert read(data[:cut], data[cut:]) == whole, cut
    assert (whole[2] == "Disconnected") is (name[:3] in ("232", "236"))


@pytest.mark.parametrize("count", ["-7", "9223372036854775808", "1" + "0" * 30])
def test_what_can_be_no_number_of_tokens_is_none(count: str) -> None:
    done = DONE.replace(b'"eval_count":2', f'"eval_count":{count},"prompt_eval_count":{count}'.encode())

    told = stream().feed(HI + done)

    assert b'"prompt_tokens":0' in told
    assert count.encode() not in told
