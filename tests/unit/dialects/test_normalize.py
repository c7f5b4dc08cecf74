"""Chunks put right one by one; the streams that are known to be broken are in tests/fakes/shapes.py."""

from __future__ import annotations

from typing import Any

import pytest

from app.dialects.openai.normalize import StreamNormalizer
from backends.errors import Broken, EngineFailed
from tests.fakes import wire
from tests.rigs.read_answer import CREATED, TOKEN, response_context

CHAT = wire.Ask("chat", "mine", stream=True, max_tokens=4)
COMPLETION = wire.Ask("completions", "mine", stream=True, max_tokens=4)
SOUND = {
    "vllm": wire.pieces(CHAT),
    "vllm's usage": [*wire.pieces(CHAT), wire.usage_piece(CHAT)],
    "llama.cpp": wire.llama_cpp_pieces(CHAT),
}


def mended(*chunks: dict[str, Any], operation: str = "chat", **more: Any) -> list[dict[str, Any]]:
    normalizer = StreamNormalizer(response_context(operation=operation, **more))
    for chunk in chunks:
        normalizer.normalize(chunk)
    return list(chunks)


def chat(*deltas: Any, index: int = 0, finish: str | None = None) -> list[dict[str, Any]]:
    """Chunks of these deltas, the last with its reason."""
    pieces = [wire.piece(CHAT, None) for _ in deltas]
    for piece, delta in zip(pieces, deltas, strict=True):
        piece["choices"][0] |= {"index": index, "delta": delta}
    pieces[-1]["choices"][0]["finish_reason"] = finish
    return pieces


@pytest.mark.parametrize("name", SOUND)
def test_what_engines_write_well_is_left_alone(name: str) -> None:
    normalizer = StreamNormalizer(response_context("mine"))

    assert not any(normalizer.normalize(chunk) for chunk in SOUND[name])
    assert (normalizer.finished, normalizer.is_open) == (1, False)


@pytest.mark.parametrize("make", [wire.pieces, wire.llama_cpp_pieces])
def test_completions_are_left_alone_too(make: Any) -> None:
    normalizer = StreamNormalizer(response_context("mine", operation="text_completion"))

    assert not any(normalizer.normalize(chunk) for chunk in make(COMPLETION))


@pytest.mark.parametrize(
    "choice",
    [{"text": "One"}, {"delta": {"content": "One"}}, {"message": {"content": "One"}}, {"text": [{"text": "One"}]}],
)
def test_a_completion_has_a_text_a_number_and_a_reason(choice: dict[str, Any]) -> None:
    (chunk,) = mended({"choices": [choice]}, operation="text_completion")

    assert chunk == {
        "id": f"cmpl-{TOKEN}",
        "object": "text_completion",
        "created": CREATED,
        "model": "mine",
        "choices": [{"index": 0, "text": "One", "finish_reason": None}],
    }


def test_a_completion_without_a_text_has_an_empty_one() -> None:
    (chunk,) = mended({"choices": [{"index": 0, "text": None, "finish_reason": "stop"}]}, operation="text_completion")

    assert chunk["choices"] == [{"index": 0, "text": "", "finish_reason": "stop"}]


def test_each_choice_has_a_role_and_a_reason_of_its_own() -> None:
    chunks = mended(
        *chat({"content": "a"}),
        *chat({"content": "b"}, index=1),
        *chat({"content": "c"}, finish="stop"),
        *chat({"content": "d"}, index=1, finish="length"),
    )

    roles = [chunk["choices"][0]["delta"].get("role") for chunk in chunks]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert roles == ["assistant", "assistant", None, None]
    assert reasons == [None, None, "stop", "length"]


def test_an_id_that_was_invented_is_kept_when_the_engine_names_one_later() -> None:
    chunks = mended({"choices": []}, {"choices": [], "id": "late", "created": 7, "object": "x"})

    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1


def test_an_id_that_the_engine_leaves_out_later_is_its_own() -> None:
    chunks = mended({"choices": [], "id": "first", "created": 7.0}, {"choices": []})

    assert [chunk["id"] for chunk in chunks] == ["first", "first"]


def test_two_calls_without_numbers_are_two() -> None:
    calls = [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"name": "g", "arguments": "{}"}}]
    (chunk,) = mended(*chat({"tool_calls": calls}))

    told = [(call["index"], call["id"], call["type"]) for call in chunk["choices"][0]["delta"]["tool_calls"]]
    assert told == [(0, f"call_{TOKEN}0", "function"), (1, f"call_{TOKEN}1", "function")]


def test_a_call_that_is_no_function_keeps_what_it_is() -> None:
    call = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}
    (chunk,) = mended(*chat({"role": "assistant", "tool_calls": [dict(call)]}))

    assert chunk["choices"][0]["delta"]["tool_calls"] == [call]


THINKS = ["<thi", "nk>\n7 ", "+ 5", "\n</th", "ink>\n", "\nTwelve", "."]


@pytest.mark.parametrize("is_apart", [False, True])
def test_thinking_in_the_text_is_split_where_that_is_wanted(is_apart: bool) -> None:
    """Also when the last piece comes together with the reason of the end."""
    said = [{"content": piece} for piece in THINKS] + ([{}] if is_apart else [])
    deltas = [c["choices"][0]["delta"] for c in mended(*chat(*said, finish="stop"), reasoning="split")]

    assert "".join(delta.get("content") or "" for delta in deltas) == "Twelve."
    for name in ("reasoning", "reasoning_content"):
        assert "".join(delta.get(name) or "" for delta in deltas) == "7 + 5"


def test_what_was_held_back_for_a_tag_is_told_at_the_end() -> None:
    deltas = [c["choices"][0]["delta"] for c in mended(*chat({"content": "<th"}, {}, finish="stop"), reasoning="split")]

    assert "".join(delta.get("content") or "" for delta in deltas) == "<th"


def test_an_engine_that_splits_by_itself_is_not_split_again() -> None:
    said = [{"reasoning": "7 + 5"}, {"content": "Twelve"}, {"content": "."}]
    deltas = [c["choices"][0]["delta"] for c in mended(*chat(*said, finish="stop"), reasoning="split_opened")]

    assert "".join(delta.get("content") or "" for delta in deltas) == "Twelve."
    assert "".join(delta.get("reasoning") or "" for delta in deltas) == "7 + 5"


def test_texts_of_completions_are_never_split() -> None:
    chunk = {"choices": [{"index": 0, "text": "<think>a</think>b", "finish_reason": "stop"}]}
    (told,) = mended(chunk, operation="text_completion", reasoning="split")

    assert told["choices"][0]["text"] == "<think>a</think>b"


NO_CHUNKS: list[Any] = [
    {"choices": 7},
    {"choices": ["a"]},
    {"choices": [{"delta": "a"}]},
    {"choices": [{"delta": {"content": 7}}]},
    {"choices": [{"delta": {"content": [{"type": "image_url"}]}}]},
    {"choices": [{"delta": {"tool_calls": 7}}]},
    {"choices": [{"delta": {"tool_calls": [7]}}]},
    {"choices": [{"delta": {"tool_calls": [{"function": 7}]}}]},
    {"choices": [{"delta": {}, "finish_reason": 7}]},
]


@pytest.mark.parametrize("chunk", NO_CHUNKS, ids=str)
def test_what_cannot_be_put_right_is_broken(chunk: dict[str, Any]) -> None:
    with pytest.raises(Broken):
        mended(chunk)


ERRORS: list[Any] = [
    {"error": {"message": "boom"}},
    {"error": {"message": {"error": "boom"}}},
    {"error": True, "message": "boom"},
    {"error": ["boom"]},
    {"errors": ["boom"]},
    {"object": "error", "message": "boom"},
    {"message": "boom", "code": 500},
    {"choices": [], "error": "boom"},
    {"choices": [{"error": {"message": "boom"}}]},
    {"choices": [{"delta": {"error": "boom"}}]},
]


@pytest.mark.parametrize("chunk", ERRORS, ids=str)
def test_an_error_is_one_wherever_it_stands(chunk: dict[str, Any]) -> None:
    with pytest.raises(EngineFailed, match="boom"):
        mended(chunk)


@pytest.mark.parametrize("error", [None, "", False, {}])
def test_an_error_that_says_nothing_beside_choices_is_none(error: object) -> None:
    assert mended({"choices": [], "error": error})
