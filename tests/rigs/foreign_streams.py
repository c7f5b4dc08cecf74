"""OpenAI streams and responses that other dialects must encode, and the way from one to the other."""

from __future__ import annotations

import tracemalloc
from typing import Any

from app.dialects.client_api import ResponseEncoder
from app.dialects.openai.response import settle_delta
from app.dialects.openai.stream_reader import DONE, StreamReader
from app.dialects.usage import Usage
from backends.errors import Disconnected
from tests.fakes import wire
from tests.rigs.read_answer import response_context

CHAT = wire.Ask("chat", "fake", stream=True, max_tokens=4)
TEXT = wire.Ask("completions", "fake", stream=True, max_tokens=4)
NAMES = ("get_weather", "get_time")


def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of a chat's stream."""
    return wire.piece(CHAT, None, finish) | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish} | more]}


def call(index: int | None, id_: str | None = None, name: str | None = None, arguments: str = "") -> dict[str, Any]:
    """One part of a tool call, in a delta."""
    function = {"name": name} if name else {}
    numbered = {"index": index} if index is not None else {}
    known = {"id": id_, "type": "function"} if id_ else {}
    return {"tool_calls": [numbered | known | {"function": function | {"arguments": arguments}}]}


THOUGHT = [
    event({"role": "assistant", "content": ""}),
    event({"reasoning_content": "Let me "}),
    event({"reasoning": "think.", "reasoning_content": "think."}),
    event({"content": "Twelve"}),
    event({"content": "."}, "stop"),
]
CALLS = [
    event({"role": "assistant", "content": "One moment. "}),
    event(call(0, "call_a", NAMES[0])),
    event(call(0, arguments='{"city": ')),
    event(call(0, arguments='"Köln"}')),
    event(call(1, "call_b", NAMES[1], "{}")),
    event({}, "tool_calls"),
]
# Neither numbers nor parts: Ollama's way, and a remote's that forgets the index.
WHOLE_CALL = [event({"role": "assistant", "content": ""} | call(None, "call_a", NAMES[0], '{"city": "Köln"}'))]
WHOLE_CALL += [event({}, "tool_calls")]
BOTH_CALLS = [("call_a", NAMES[0], '{"city": "Köln"}'), ("call_b", NAMES[1], '{"zone": "CET"}')]
_FIRST, _SECOND = ['{"city"', ': "Köln"}'], ['{"zone": ', '"CET"}']
_BEGUN = [event({"role": "assistant", "content": ""}), event(call(0, "call_a", NAMES[0]))]
_BEGUN += [event(call(1, "call_b", NAMES[1]))]
_END = [event({}, "tool_calls")]
_MIXED = [event(call(at, arguments=parts[turn])) for turn in (0, 1) for at, parts in ((0, _FIRST), (1, _SECOND))]
# Two calls, their parts in turns: by their numbers, by their ids alone, and with text between them.
ALTERNATING: dict[str, list[dict[str, Any]]] = {
    "by number": [*_BEGUN, *_MIXED, *_END],
    "the second first": [*_BEGUN, *reversed(_MIXED[:2]), *reversed(_MIXED[2:]), *_END],
    "the second is whole first": [*_BEGUN, _MIXED[1], _MIXED[3], _MIXED[0], _MIXED[2], *_END],
    "in one event": [
        *_BEGUN,
        *(
            event({"tool_calls": [*call(0, arguments=one)["tool_calls"], *call(1, arguments=two)["tool_calls"]]})
            for one, two in zip(_FIRST, _SECOND, strict=True)
        ),
        *_END,
    ],
    "the last parts with the end": [*_BEGUN, *_MIXED[:3], event(call(1, arguments=_SECOND[1]), "tool_calls")],
    "by id": [
        event({"role": "assistant"} | call(0, "call_a", NAMES[0])),
        event(call(0, "call_b", NAMES[1])),
        *(
            event(call(0, id_, arguments=parts[turn]))
            for turn in (0, 1)
            for id_, parts in (("call_a", _FIRST), ("call_b", _SECOND))
        ),
        *_END,
    ],
    "text between": [*_BEGUN, *_MIXED[:2], event({"content": "One moment."}), *_MIXED[2:], *_END],
}
CUT_CALL = [*CALLS[:3], event({}, "length")]
STREAMS: dict[str, bytes] = {
    "vllm": b"".join(map(wire.sse, [*wire.pieces(CHAT), wire.usage_piece(CHAT)])) + DONE,
    "llama.cpp": b"".join(map(wire.sse, wire.llama_cpp_pieces(CHAT))) + DONE,
    "completion": b"".join(map(wire.sse, [*wire.pieces(TEXT), wire.usage_piece(TEXT)])) + DONE,
    "crlf": (b"".join(map(wire.sse, [*wire.pieces(CHAT), wire.usage_piece(CHAT)])) + DONE).replace(b"\n", b"\r\n"),
    **{
        name: b"".join(map(wire.sse, [*pieces, wire.usage_piece(CHAT)])) + DONE
        for name, pieces in {
            "thought": THOUGHT,
            "calls": CALLS,
            "whole call": WHOLE_CALL,
            "cut call": CUT_CALL,
        }.items()
    },
}


def encoded(encoder: ResponseEncoder, pieces: list[bytes]) -> bytes:
    """What the client gets when an engine's stream comes in these pieces."""
    reader = _reader(encoder)
    out = b"".join(map(reader.feed, pieces))
    assert reader.error is None
    return out + reader.end() + encoder.end(reader.settle(), reader.stats)


def encoded_whole(encoder: ResponseEncoder, answer: bytes, usage: Usage) -> bytes:
    """What the client gets when this is an engine's whole response, with that usage."""
    delta, _, stats = settle_delta(response_context(), answer)
    return encoder.whole(delta, usage, stats)


def _reader(encoder: ResponseEncoder) -> StreamReader:
    return StreamReader(response_context(), hides_usage=False, max_event_bytes=1 << 20, encoder=encoder)


def whole(name: str) -> bytes:
    """The whole response that has the same content as the stream of that name."""
    message: dict[str, Any] = {"role": "assistant", "content": "The sum of 7"}
    finish = "length"
    match name:
        case "thought":
            message, finish = {"role": "assistant", "content": "Twelve.", "reasoning_content": "Let me think."}, "stop"
        case "calls":
            calls = [("call_a", NAMES[0], '{"city": "Köln"}'), ("call_b", NAMES[1], "{}")]
            message = {"role": "assistant", "content": "One moment. "}
            message["tool_calls"] = [
                {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
                for id_, name, arguments in calls
            ]
            finish = "tool_calls"
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "mine"}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return wire.dumps(answer | {"choices": [choice], "usage": wire.usage(CHAT)})


def unfinished(encoder: ResponseEncoder) -> bytes:
    """What the client has got of a stream that broke, before its error."""
    reader = _reader(encoder)
    out = reader.feed(b"".join(map(wire.sse, wire.pieces(CHAT)[:3])))
    try:
        reader.end()
    except Disconnected:
        return out
    raise AssertionError("the stream was complete")


def copied_by_a_part(encoder: ResponseEncoder) -> int:
    """The most memory, in bytes, that one small part of a call's arguments takes after a megabyte of them."""
    reader = _reader(encoder)
    reader.feed(wire.sse(event(call(0, "call_a", "add", '{"a":"' + "x" * 1_000_000))))
    reader.feed(wire.sse(event(call(0, arguments="y"))))  # what is made once is made
    part = wire.sse(event(call(0, arguments="z")))
    tracemalloc.start()
    try:
        reader.feed(part)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
