"""Log probabilities of text completions: lists side by side, whole and streamed, whichever shape an engine sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.dialects.openai.response import settle
from app.dialects.openai.stream_reader import DONE, StreamReader
from backends.errors import Broken
from tests.fakes import wire
from tests.rigs.read_answer import response_context

HEAD = {"id": "c", "object": "text_completion", "created": 1, "model": "mine"}


def token(text: str, logprob: float, *tops: tuple[str, float], data: bytes | None = None) -> dict[str, Any]:
    """As llama.cpp says it."""
    said = [{"id": 1, "token": top, "bytes": [*top.encode()], "logprob": value} for top, value in tops]
    known = text.encode() if data is None else data
    return {"id": 1, "token": text, "bytes": [*known], "logprob": logprob, "top_logprobs": said}


PARIS = [token(" Paris", -0.5, (" Paris", -0.5), (" the", -2)), token(".", -1, (",", -0.9))]
LISTS: dict[str, list[Any]] = {
    "tokens": [" Paris", "."],
    "token_logprobs": [-0.5, -1],
    "top_logprobs": [{" Paris": -0.5, " the": -2}, {",": -0.9, ".": -1}],
    "text_offset": [0, 6],
}


def choice(text: str, tokens: list[dict[str, Any]] | None, finish: str | None = None, at: int = 0) -> dict[str, Any]:
    probs = None if tokens is None else {"content": tokens}
    return {**HEAD, "choices": [{"text": text, "index": at, "logprobs": probs, "finish_reason": finish}]}


def answered(tokens: Any) -> Any:
    asked = response_context(operation="text_completion")
    return json.loads(settle(asked, wire.dumps(choice("x", tokens, "stop")))[0])["choices"][0]["logprobs"]


def streamed(*chunks: dict[str, Any]) -> list[Any]:
    """The log probabilities of each event that the client gets."""
    reader = StreamReader(
        response_context(operation="text_completion"), hides_usage=False, max_event_bytes=1 << 20, choices=1
    )
    data = b"".join(reader.feed(wire.sse(chunk)) for chunk in chunks) + reader.feed(DONE)
    assert reader.error is None
    lines = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: {")]
    return [each["logprobs"] for line in lines for each in json.loads(line)["choices"]]


def test_a_whole_completion_has_lists_and_the_token_that_was_taken_is_among_the_likeliest() -> None:
    assert answered(PARIS) == LISTS


def test_what_is_right_already_or_absent_stays() -> None:
    body = wire.dumps({**HEAD, "choices": [{"text": "x", "index": 0, "logprobs": LISTS, "finish_reason": "stop"}]})

    assert settle(response_context(operation="text_completion"), body)[0] == body
    assert answered(None) is None


def test_a_stream_has_lists_whose_offsets_go_on_in_each_choice() -> None:
    found = streamed(
        choice(" Paris", PARIS[:1]),
        choice(".", PARIS[1:]),
        choice("b", [token("b", -1)], at=1),
        choice(" the", [token(" the", -3)]),
        choice("", None, "stop"),
        choice("", None, "stop", at=1),
    )

    assert [each and each["text_offset"] for each in found] == [[0], [6], [0], [7], None, None]
    assert found[0] == {name: list(values)[:1] for name, values in LISTS.items()}


def test_tokens_that_are_parts_of_a_character_begin_where_it_does() -> None:
    smile = "🙂".encode()
    parts = [token("�", -1, data=smile[:2]), token("�", -1, data=smile[2:]), token("é", -1), token("x", -1)]

    assert answered(parts)["text_offset"] == [0, 0, 1, 2]


def test_an_engine_that_says_no_bytes_is_counted_by_its_texts() -> None:
    plain: list[dict[str, Any]] = [
        {"token": "ab", "logprob": -1},
        {"token": "c", "logprob": -1, "bytes": ["no"]},
        {"token": "d"},
    ]

    assert answered(plain)["text_offset"] == [0, 2, 3]
    assert answered(plain)["top_logprobs"][0] == {"ab": -1}


@pytest.mark.parametrize("wrong", [["x"], [{}], [{"token": 1}]])
def test_probabilities_of_nothing_are_no_answer(wrong: Any) -> None:
    with pytest.raises(Broken, match="log probabilities without tokens"):
        answered(wrong)
