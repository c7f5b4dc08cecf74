"""One stream of an OpenAI-like engine: what passes, what is taken out, what is counted, and what ends it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.dialects.openai.stream_reader import DONE, StreamReader
from app.dialects.usage import Usage
from backends.errors import Broken, Disconnected, EngineFailed
from tests import RECORDED
from tests.fakes import wire
from tests.rigs.read_answer import response_context

LIMIT = 1 << 20
CHAT = wire.Ask("chat", "fake", stream=True, max_tokens=4)
ASKED = wire.Ask("chat", "fake", stream=True, include_usage=True, max_tokens=4)
COMPLETION = wire.Ask("completions", "fake", stream=True, max_tokens=4)
TEXT = "".join(CHAT.words)
OLLAMA = {path.stem: path.read_bytes() for path in sorted(RECORDED.glob("*.sse"))}


def stream(*pieces: object, end: bytes = DONE) -> bytes:
    return b"".join(map(wire.sse, pieces)) + end


STREAMS = {
    "vllm": stream(*wire.pieces(CHAT)),
    "vllm with usage": stream(*wire.pieces(CHAT), wire.usage_piece(CHAT)),
    "vllm completion": stream(*wire.pieces(COMPLETION), wire.usage_piece(COMPLETION)),
    "llama.cpp": stream(*wire.llama_cpp_pieces(CHAT)),
    "llama.cpp with usage": stream(*wire.llama_cpp_pieces(ASKED)),
    "usage everywhere": stream(*(p | {"usage": wire.usage(CHAT, at)} for at, p in enumerate(wire.pieces(CHAT)))),
    "comments": b": hi\n\n" + b": ping\n\n".join(map(wire.sse, wire.pieces(CHAT))) + b": bye\n\n" + DONE,
    "event fields": b"".join(b"event: message\nid: 7\n" + wire.sse(piece) for piece in wire.pieces(CHAT)) + DONE,
    "empty data": b"".join(b"data:\n\ndata: \n\n" + wire.sse(piece) for piece in wire.pieces(CHAT)) + DONE,
    "no space": stream(*wire.pieces(CHAT)).replace(b"data: ", b"data:"),
    "text like data lines": stream(
        wire.piece(CHAT, "a"), wire.piece(CHAT, "data: b data:"), wire.piece(CHAT, "c", "length")
    ),
    "empty pieces inside": stream(*(wire.piece(CHAT, text) for text in "a b"), wire.piece(CHAT, "", "stop")),
    "junk after the end": stream(*wire.pieces(CHAT)) + wire.sse(wire.piece(CHAT, wire.JUNK)) + wire.JUNK.encode(),
    "no end mark": stream(*wire.pieces(CHAT), end=b""),
    "error event": stream(*wire.pieces(CHAT)[:4], end=wire.error_event()) + DONE,
    "unfinished": stream(*wire.pieces(CHAT)[:4], end=b""),
    **OLLAMA,
}
STREAMS |= {f"{name} crlf": STREAMS[name].replace(b"\n", b"\r\n") for name in ("vllm", "empty data", "error event")}
STREAMS["vllm cr"] = STREAMS["vllm"].replace(b"\n", b"\r")


def reader(
    name: str = "mine", *, hides_usage: bool = True, limit: int = LIMIT, operation: str = "chat"
) -> StreamReader:
    return StreamReader(response_context(name, operation=operation), hides_usage=hides_usage, max_event_bytes=limit)


def run(pieces: list[bytes], **options: Any) -> tuple[bytes, str, Usage, bool]:
    """What the client gets, how it ended, what it cost, and whether a token was seen."""
    is_completion = b'"object":"text_completion"' in b"".join(pieces)
    stream = reader(**options, operation="text_completion" if is_completion else "chat")
    out, ending = b"".join(stream.feed(piece) for piece in pieces), "done"
    if stream.error is not None:
        ending = f"{type(stream.error).__name__}: {stream.error}"
    else:
        try:
            out += stream.end()
        except Disconnected as exc:
            ending = str(exc)
    return out, ending, stream.settle(), stream.has_token


def events(out: bytes) -> list[Any]:
    found = [line[5:] for line in out.splitlines() if line.startswith(b"data:")]
    return [part.strip() if b"[DONE]" in part else json.loads(part) for part in found]


def text(out: bytes) -> str:
    choices = [c for e in events(out) if isinstance(e, dict) for c in e.get("choices") or ()]
    return "".join(c.get("text") or (c.get("delta") or {}).get("content") or "" for c in choices)


@pytest.mark.parametrize("name", STREAMS)
def test_one_cut_anywhere_changes_nothing(name: str) -> None:
    data = STREAMS[name]
    expected = run([data])

    for cut in range(1, len(data)):
        assert run([data[:cut], data[cut:]]) == expected


@pytest.mark.parametrize("name", STREAMS)
def test_byte_by_byte_changes_nothing(name: str) -> None:
    data = STREAMS[name]

    assert run([bytes([byte]) for byte in data]) == run([data])


@settings(max_examples=200)
@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(1, 400), min_size=1, max_size=60), st.booleans())
def test_random_pieces_change_nothing(name: str, sizes: list[int], hides_usage: bool) -> None:
    data, pieces, at = STREAMS[name], [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size

    assert run([*pieces, data[at:]], hides_usage=hides_usage) == run([data], hides_usage=hides_usage)


def test_what_needs_no_edit_passes_byte_for_byte() -> None:
    for name in ("vllm", "llama.cpp", "usage everywhere", "event fields"):
        out, ending, _, _ = run([STREAMS[name]], name="fake")

        assert ending == "done"
        assert out[:-20] == STREAMS[name][: len(out) - 20]
        assert text(out) == TEXT


@pytest.mark.parametrize("hides_usage", [True, False])
@pytest.mark.parametrize("name", ["vllm with usage", "vllm completion", "ollama_chat", "ollama_tools"])
def test_usage_the_client_did_not_ask_for_is_taken_out_and_counted(name: str, hides_usage: bool) -> None:
    out, ending, cost, _ = run([STREAMS[name]], hides_usage=hides_usage)

    assert ending == "done"
    assert any(isinstance(e, dict) and not e["choices"] for e in events(out)) is not hides_usage
    assert cost.input_tokens in (12, 85)
    assert cost.output_tokens > 0
    assert not cost.is_counted


def test_usage_beside_choices_is_never_taken_out() -> None:
    out, _, cost, _ = run([STREAMS["usage everywhere"]], name="fake")

    assert out == STREAMS["usage everywhere"]
    assert (cost.input_tokens, cost.output_tokens) == (12, 4)


COSTS = {
    "vllm": Usage(0, 4, "length", is_counted=True),
    "vllm with usage": Usage(12, 4, "length"),
    "llama.cpp": Usage(12, 4, "length"),
    "llama.cpp with usage": Usage(12, 4, "length"),
    "ollama_chat": Usage(12, 4, "length"),
    "ollama_tools": Usage(85, 28, "tool_calls"),
    "text like data lines": Usage(0, 3, "length", is_counted=True),
    "unfinished": Usage(0, 3, None, is_counted=True),
}


@pytest.mark.parametrize(("name", "cost"), COSTS.items(), ids=COSTS)
def test_what_an_answer_cost_is_what_the_engine_says_or_the_events_with_text(name: str, cost: Usage) -> None:
    assert run([STREAMS[name]])[2] == cost


def test_a_count_of_zero_before_the_end_is_no_count() -> None:
    """Ollama's completions say zero in every event but the last; a client that leaves early has used tokens all the
    same."""
    data = STREAMS["ollama_completion"]
    cut = data.index(b'finish_reason":"length')

    cost = run([data[:cut]])[2]

    assert cost == Usage(0, 3, None, is_counted=True)


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": None, "completion_tokens": None}, {"total_tokens": 3}])
def test_usage_that_says_nothing_does_not_break_the_answer(usage: object) -> None:
    out, ending, cost, _ = run([stream(*wire.pieces(CHAT), {"choices": [], "usage": usage})])

    assert (text(out), ending) == (TEXT, "done")
    assert cost.output_tokens == 4


NAMES = ["mine", "fake", "ollama/qwen2.5:7b", 'a "quoted" name', "back\\slash", "模型-7b", "🙂", "x" * 200]


@pytest.mark.parametrize("public", NAMES)
@pytest.mark.parametrize("engine", NAMES)
def test_every_event_carries_the_clients_name_and_only_that_is_changed(engine: str, public: str) -> None:
    pieces = wire.pieces(wire.Ask("chat", engine, stream=True))

    for chunks in ([stream(*pieces)], [wire.sse(piece) for piece in pieces] + [DONE]):
        out = run(chunks, name=public)[0]

        assert events(out)[:-1] == [piece | {"model": public} for piece in pieces]


SPELLINGS = [
    b'"model":"team/zw\\u00f6lf"',
    b'"model":"team\\/zw\xc3\xb6lf"',
    b'"model": "team/zw\xc3\xb6lf"',
    b'"model" : "team/zw\xc3\xb6lf"',
    b'"model":"\\u0074eam/zw\xc3\xb6lf"',
]


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_a_name_is_found_however_the_engine_spells_its_json(spelled: bytes) -> None:
    choice = b'{"index":0,"delta":{"role":"assistant","content":"a"},"finish_reason":null}'
    head = b'"id":"x","object":"chat.completion.chunk","created":1'
    events_of = [b'data: {"choices":[%b],%b,%b}\n\n' % (choice, head, spelled)] * 3

    out = run(events_of, name="mine")[0]

    assert [e["model"] for e in events(out)] == ["mine"] * 3


def test_text_that_looks_like_the_model_field_is_left_alone() -> None:
    said = 'say "model":"fake" and {"model": "fake"}'

    out = run([wire.sse(wire.piece(CHAT, said))] * 2 + [DONE], name="other")[0]

    assert text(out) == said * 2


def test_a_first_chunk_without_a_name_does_not_stop_the_renaming() -> None:
    nameless = wire.piece(CHAT, "", role=True) | {"model": ""}

    out = run([wire.sse(nameless), *(wire.sse(p) for p in wire.pieces(CHAT)[1:]), DONE])[0]

    assert {e["model"] for e in events(out)[1:-1]} == {"mine"}


def test_what_came_before_an_error_event_still_goes_out_and_nothing_after_it() -> None:
    good = b"".join(map(wire.sse, wire.pieces(CHAT)[:4]))
    stream = reader("fake")

    out = stream.feed(good + wire.error_event("out of memory") + good + DONE)

    assert out == good
    assert isinstance(stream.error, EngineFailed)
    assert "out of memory" in stream.error.message
    assert stream.feed(good) == b""


@pytest.mark.parametrize("bad", [b"data: {nope\n\n", b"data: 7\n\n", b"data: []\n\n", b'data: {"choices":7}\n\n'])
def test_what_is_no_chunk_of_an_answer_ends_the_stream_until_the_first_token(bad: bytes) -> None:
    """Afterwards an event is only looked into where something in it may matter."""
    good = wire.sse(wire.piece(CHAT, "", role=True))
    stream = reader("fake")

    assert stream.feed(good + bad) == good
    assert isinstance(stream.error, Broken)


def test_an_error_among_events_without_blank_lines_ends_the_stream_too() -> None:
    first, second, third, *_ = map(wire.sse, wire.pieces(CHAT))
    stream = reader("fake")

    out = stream.feed(first[:-1] + second[:-1] + wire.error_event("out of memory") + third)

    assert out == first + second
    assert isinstance(stream.error, EngineFailed)


def test_a_byte_order_mark_hides_no_event() -> None:
    for bom in (b"\xef\xbb\xbf", b""):
        for data in (STREAMS["vllm"], STREAMS["vllm crlf"]):
            assert run([bom + data])[0] == run([STREAMS["vllm"]])[0]


def test_nothing_behind_the_end_mark_is_seen() -> None:
    stream = reader("fake")
    whole = STREAMS["vllm"]

    assert stream.feed(STREAMS["junk after the end"]) == whole
    assert stream.is_done
    assert stream.feed(wire.sse(wire.piece(CHAT, wire.JUNK))) == b""
    assert stream.end() == b""


@pytest.mark.parametrize("rest", [b"", b"data: [DONE]", b"data:[DONE]\n", b"data: [DO", b": bye\n\n"])
def test_a_finished_answer_gets_the_end_mark_that_it_lacks(rest: bytes) -> None:
    out, ending, _, _ = run([stream(*wire.pieces(CHAT), end=rest)], name="fake")

    assert ending == "done"
    assert out.endswith(DONE)
    assert out.count(b"[DONE]") == 1


@pytest.mark.parametrize("rest", [b"data: [DONE]", b"data:[DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n"])
def test_an_end_mark_that_lacks_its_blank_line_is_one(rest: bytes) -> None:
    out, ending, _, _ = run([stream(*wire.pieces(CHAT), end=rest)])

    assert ending == "done"
    assert out.endswith(DONE)
    assert out.count(b"[DONE]") == 1


@pytest.mark.parametrize("end", [DONE, b"data: [DONE]", b"", DONE.replace(b"\n", b"\r\n")])
def test_an_end_mark_without_a_reason_for_the_end_is_none(end: bytes) -> None:
    """Who reads text only could not tell it from a whole answer."""
    for pieces in ([stream(*wire.pieces(CHAT)[:3], end=end)], [stream(*wire.pieces(CHAT)[:3], end=b""), end]):
        out, ending, _, _ = run(pieces)

        assert "ended before the answer was finished" in ending
        assert b"[DONE]" not in out


def test_an_unfinished_answer_is_not_made_to_look_finished() -> None:
    out, ending, _, _ = run([STREAMS["unfinished"]])

    assert "[DONE]" not in out.decode()
    assert ending == "its stream ended before the answer was finished"


def test_comments_wait_for_the_first_event_and_are_passed_on_after_it() -> None:
    out = run([STREAMS["comments"]], name="fake")[0]

    assert b": hi" not in out
    assert b": ping" in out


def test_an_event_beyond_the_limit_ends_the_stream() -> None:
    stream = reader("fake", limit=1000)
    good = wire.sse(wire.piece(CHAT, "a", role=True))

    assert stream.feed(good) == good
    assert stream.feed(b"data: " + b"x" * 600) == b""
    assert stream.feed(b"x" * 600) == b""
    assert isinstance(stream.error, Broken)
    assert "more than 1000 bytes" in stream.error.message


@pytest.mark.parametrize(
    "delta",
    [{"content": "a"}, {"reasoning": "a"}, {"reasoning_content": "a"}, {"tool_calls": [{"function": {"name": "f"}}]}],
)
def test_the_first_token_is_the_first_text_thought_or_call(delta: dict[str, object]) -> None:
    stream = reader()

    stream.feed(wire.sse({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))
    assert not stream.has_token
    stream.feed(wire.sse({"choices": [{"delta": delta}]}))
    assert stream.has_token


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 12.0, "completion_tokens": 3.0}, (12, 3)),
        ({"prompt_tokens": "many", "completion_tokens": 3}, (0, 3)),
        ({"prompt_tokens": -4, "completion_tokens": 1e300}, (0, 1)),
        ("a lot", (0, 1)),
        ([], (0, 1)),
    ],
)
def test_a_usage_of_any_shape_ends_no_stream(usage: Any, expected: tuple[int, int]) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": usage}

    _, ending, cost, _ = run([wire.sse(chunk), wire.DONE])

    assert ending == "done"
    assert (cost.input_tokens, cost.output_tokens) == expected


def test_an_event_nested_without_end_is_no_answer() -> None:
    stream = reader()

    assert stream.feed(b'data: {"choices":' + b"[" * 100_000 + b"\n\n") == b""
    assert isinstance(stream.error, Broken)


@pytest.mark.parametrize(("asked", "ended", "is_finished"), [(1, [0], True), (2, [0], False), (2, [1, 0], True)])
def test_an_answer_is_finished_when_each_choice_is(asked: int, ended: list[int], is_finished: bool) -> None:
    stream = StreamReader(response_context("m"), hides_usage=False, max_event_bytes=LIMIT, choices=asked)
    for index in ended:
        stream.feed(wire.sse({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]}))

    assert stream.is_finished is is_finished


def test_a_choice_that_nobody_asked_for_must_end_too() -> None:
    stream = reader()
    stream.feed(wire.sse({"choices": [{"index": 1, "delta": {"content": "half"}}]}))
    stream.feed(wire.sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))

    with pytest.raises(Disconnected):
        stream.end()


@pytest.mark.parametrize("delta", [7, "x", [1], True])
def test_what_stands_in_a_completion_in_place_of_a_delta_is_passed_over(delta: object) -> None:
    stream = StreamReader(response_context(operation="text_completion"), hides_usage=False, max_event_bytes=LIMIT)
    choice = {"index": 0, "text": "", "delta": delta, "finish_reason": None}

    out = stream.feed(wire.sse({"choices": [choice]})) + stream.feed(wire.sse({"choices": [choice | {"text": "a"}]}))

    assert stream.error is None
    assert out.count(b"data: ") == 2
    assert stream.has_token
