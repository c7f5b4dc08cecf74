"""Events known by their bytes: the very same answer as when each of them is decoded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.dialects.anthropic.response import AnthropicEncoder
from app.dialects.delta import DeltaReader
from app.dialects.openai import stream_reader
from app.dialects.openai.fast_path import compile_delta_template, compile_template
from app.dialects.openai.stream_reader import StreamReader
from backends.http.delta import Delta
from tests.fakes import wire
from tests.rigs.read_answer import response_context

CHAT = wire.Ask("chat", "fake", stream=True)
EVENT = wire.sse(wire.piece(CHAT, "one"))


def same(event: bytes) -> bytes:
    return event


TEXTS = ["two", "", "a\nb", 'say "no"', "back\\slash", '\\"', "zwölf 🙂", 'x","role":"y', "data: x\n\ndata: y", "\x00"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("ensure_ascii", [False, True])
def test_an_event_with_another_text_is_known(text: str, ensure_ascii: bool) -> None:
    template = compile_template(EVENT, same)
    other = EVENT.replace(b'"one"', json.dumps(text, ensure_ascii=ensure_ascii).encode())

    assert template is not None
    assert template.fill(other) == (1, other)
    assert template.fill(other + EVENT + other) == (3, other + EVENT + other)


@pytest.mark.parametrize(
    "other",
    [
        b"",
        EVENT[:-1],
        EVENT[1:],
        EVENT.replace(b"null", b'"stop"', 2),
        EVENT.replace(b'"one"', b'"one","role":"assistant"'),
        EVENT.replace(b'"one"', b'"one\\"'),
        EVENT.replace(b'"one"', b'"o"ne"'),
        EVENT.replace(b'"one"', b'"o\n\nne"'),
        EVENT.replace(b'"one"', b"null"),
        EVENT + b": ping\n\n" + EVENT,
        EVENT + wire.DONE,
        EVENT + wire.sse(wire.piece(CHAT, "x", "stop")),
        EVENT + b"\n" + EVENT,
    ],
)
def test_anything_else_is_not(other: bytes) -> None:
    template = compile_template(EVENT, same)

    assert template is not None
    assert template.fill(other) is None


def test_a_text_that_is_said_twice_is_the_same_twice() -> None:
    event = wire.sse({"choices": [{"delta": {"reasoning": "a", "reasoning_content": "a"}}]})
    template = compile_template(event, same)

    assert template is not None
    assert template.fill(event.replace(b'"a"', b'"bc"')) is not None
    assert template.fill(event.replace(b'"a"', b'"bc"') * 2) is not None
    assert template.fill(event.replace(b'"a"', b'"b"', 1)) is None


@pytest.mark.parametrize("delta", [{}, {"content": ""}, {"content": None}, {"content": "a", "reasoning": "b"}])
def test_an_event_without_one_text_has_no_template(delta: dict[str, Any]) -> None:
    assert compile_template(wire.sse({"choices": [{"delta": delta}]}), same) is None


def probable(text: str, logprobs: object) -> bytes:
    piece = wire.piece(CHAT, text)
    piece["choices"][0]["logprobs"] = logprobs
    return wire.sse(piece)


TOKEN = {"token": "one", "logprob": -0.5, "bytes": [1], "top_logprobs": []}
PROBABLE = probable("one", {"content": [TOKEN]})


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("logprobs", [{"content": [TOKEN | {"token": '"}],'}] * 2}, {}, None])
def test_log_probabilities_may_differ_as_well(text: str, logprobs: object) -> None:
    template = compile_template(PROBABLE, same)
    other = probable(text, logprobs)

    assert template is not None
    assert template.fill(other) == (1, other)


def test_log_probabilities_are_passed_on_under_another_name() -> None:
    template = compile_template(PROBABLE, lambda event: event.replace(b'"fake"', b'"mine"'))
    other = probable("two", {"content": [TOKEN | {"logprob": -1.5}]})

    assert template is not None
    assert template.fill(other) == (1, other.replace(b'"fake"', b'"mine"'))


@pytest.mark.parametrize(
    "other",
    [
        PROBABLE + PROBABLE,
        PROBABLE.replace(b'"logprobs":', b'"logprobs":' + b"[" * 100_000),
        PROBABLE.replace(b'"logprobs":', b'"logprobs":null,"finish_reason":"stop","x":'),
        PROBABLE.replace(b'"logprobs":{', b'"logprobs":{{'),
        PROBABLE.replace(b'"logprobs":{', b'"logprobs":\n\n{'),
        PROBABLE.replace(b'"one"}', b'"one","role":"assistant"}'),
        PROBABLE.replace(b'"logprobs"', b'"logprobs2"'),
        EVENT.replace(b'"logprobs":null,', b""),
    ],
)
def test_what_is_no_log_probability_is_not_taken_for_one(other: bytes) -> None:
    template = compile_template(PROBABLE, same)

    assert template is not None
    assert template.fill(other) is None


# -- a stream with them, and without


def _pieces(text: list[str], name: str, drop: list[str], index: int) -> list[Any]:
    chunks = [wire.piece(CHAT, None) for _ in text]
    for chunk, said in zip(chunks, text, strict=True):
        choice = chunk["choices"][0]
        choice |= {"index": index, "delta": {name: said}}
        for field in drop:
            chunk.pop(field, None)
            choice.pop(field, None)
    return chunks


def read(data: list[bytes], *, is_learning: bool) -> tuple[list[Any], int]:
    reader = StreamReader(response_context(), hides_usage=False, max_event_bytes=1 << 20)
    if not is_learning:
        reader._compilations_left = 0
    out = b"".join(map(reader.feed, data)) + reader.end()
    found = [json.loads(line[6:]) for line in out.splitlines() if line.startswith(b"data: {")]
    return found, reader.settle().output_tokens


_words = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=6)
_names = st.sampled_from(["content", "reasoning", "reasoning_content"])
_runs = st.lists(st.tuples(_words, _names, st.integers(0, 1)), min_size=1, max_size=5)
_drops = st.lists(st.sampled_from(["id", "object", "model", "finish_reason", "index"]), max_size=3)


@settings(max_examples=300, deadline=None)
@given(_runs, _drops, st.integers(1, 5), st.booleans())
def test_a_stream_reads_the_same_whether_or_not_its_events_are_known(
    runs: list[tuple[list[str], str, int]], drop: list[str], at_once: int, is_ascii: bool
) -> None:
    chunks = [chunk for text, name, index in runs for chunk in _pieces(text, name, drop, index)]
    indexes = {index for _, _, index in runs} if "index" not in drop else {0}
    ends = [wire.piece(CHAT, None, "stop") for _ in indexes]
    for end, index in zip(ends, indexes, strict=True):
        end["choices"][0]["index"] = index
    events = [
        b"data: " + json.dumps(chunk, ensure_ascii=is_ascii, separators=(",", ":")).encode() + b"\n\n"
        for chunk in [*chunks, *ends]
    ]
    data = [b"".join(events[at : at + at_once]) for at in range(0, len(events), at_once)]

    assert read(data, is_learning=True) == read(data, is_learning=False)
    assert told_as_anthropic(data, is_learning=True) == told_as_anthropic(data, is_learning=False)


def told_as_anthropic(data: list[bytes], *, is_learning: bool) -> tuple[bytes, int]:
    encoder = AnthropicEncoder("mine", "abc")
    reader = StreamReader(response_context(), hides_usage=False, max_event_bytes=1 << 20, encoder=encoder)
    if not is_learning:
        reader._compilations_left = 0
    out = b"".join(map(reader.feed, data)) + reader.end()
    return out + encoder.end(reader.settle(), reader.stats), reader.settle().output_tokens


@pytest.mark.parametrize("text", [text for text in TEXTS if text])
@pytest.mark.parametrize("name", ["content", "reasoning", "reasoning_content"])
def test_another_dialect_gets_the_text_without_its_escapes(text: str, name: str) -> None:
    first = EVENT.replace(b'"content"', f'"{name}"'.encode())
    made: list[Delta] = []
    field = "text" if name == "content" else "thinking"

    def encode(delta: Delta) -> bytes:
        made.append(delta)
        return b""

    template = compile_delta_template(first, lambda event: DeltaReader("t").read(json.loads(event[6:])), encode)

    assert template is not None
    for escaped in (json.dumps(text).encode(), json.dumps(text, ensure_ascii=False).encode()):
        assert template.fill(first.replace(b'"one"', escaped) * 2) == (2, b"")
    assert [getattr(delta, field) for delta in made] == [text] * 4


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("logprobs", [{"content": [TOKEN | {"token": '"}],'}] * 2}, {"content": []}, {}, None])
def test_another_dialect_gets_log_probabilities_with_the_text(text: str, logprobs: object) -> None:
    made: list[Delta] = []

    def encode(delta: Delta) -> bytes:
        made.append(delta)
        return b"x"

    reader = DeltaReader("t")
    template = compile_delta_template(PROBABLE, lambda event: reader.read(json.loads(event[6:])), encode)
    other = probable(text, logprobs)

    assert template is not None
    assert template.fill(other) == (1, b"x")
    assert made == [reader.read(json.loads(other[6:]))]
    assert template.fill(other + other) is None


@pytest.mark.parametrize("text", [rb"\q", rb"\ud800", rb"\u12"])
def test_an_escape_that_json_does_not_have_is_not_read_as_a_text(text: bytes) -> None:
    template = compile_delta_template(EVENT, lambda event: DeltaReader("t").read(json.loads(event[6:])), lambda _: b"x")

    assert template is not None
    assert template.fill(EVENT.replace(b"one", b"two")) == (1, b"x")
    assert template.fill(EVENT.replace(b"one", text)) is None


def test_a_stream_in_which_no_event_comes_twice_is_not_learnt_from_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    monkeypatch.setattr(stream_reader, "compile_template", lambda event, _: seen.append(event))
    reader = StreamReader(response_context(), hides_usage=False, max_event_bytes=1 << 20)

    for at in range(50):
        reader.feed(wire.sse(wire.piece(CHAT, "a") | {"at": at}))

    assert len(seen) == stream_reader.MAX_COMPILED


def test_calls_of_the_same_number_are_kept_apart() -> None:
    """The same bytes belong to the second call once it has begun."""

    def call(arguments: str, **more: Any) -> bytes:
        chunk = wire.piece(CHAT, None)
        chunk["choices"][0]["delta"] = {"tool_calls": [{"index": 0, **more, "function": {"arguments": arguments}}]}
        if more:
            chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] = "f"
        return wire.sse(chunk)

    first = [call("", id="a", type="function"), *map(call, "123")]
    data = [*first, call("", id="b", type="function"), *map(call, "456"), wire.sse(wire.piece(CHAT, None, "stop"))]

    for pieces in (data, [b"".join(data)]):
        found, _ = read(pieces, is_learning=True)

        calls = [each for chunk in found for each in chunk["choices"][0]["delta"].get("tool_calls") or ()]
        told = [(each["index"], each["function"]["arguments"]) for each in calls]
        assert told == [*((0, each) for each in ("", *"123")), *((1, each) for each in ("", *"456"))]
