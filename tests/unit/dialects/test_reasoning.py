"""Thinking: both of its names, and its tags in a text, cut anywhere."""

from __future__ import annotations

from typing import Any

import pytest

from app.dialects.reasoning import Reasoning, give_both, splitter

SPLITS: dict[str, tuple[Reasoning, str, str, str]] = {
    "as templates write it": ("split", "<think>\n7 + 5\n\nis 12\n</think>\n\nTwelve.\n", "7 + 5\n\nis 12", "Twelve.\n"),
    "on one line": ("split", "<think>a</think>b", "a", "b"),
    "behind white space": ("split", " \n<think>a</think> b", "a", " b"),
    "nothing thought": ("split", "<think>\n\n</think>\n\nTwelve.", "", "Twelve."),
    "nothing said": ("split", "<think>a</think>", "a", ""),
    "not ended": ("split", "<think>a < b </thin", "a < b </thin", ""),
    "only its tag": ("split", "<think>", "", ""),
    "half its tag": ("split", " <thi", "", " <thi"),
    "no tags": ("split", "Twelve.\n", "", "Twelve.\n"),
    "nearly a tag": ("split", "<thinking>a</thinking>", "", "<thinking>a</thinking>"),
    "tags later": ("split", "Say <think>a</think>.", "", "Say <think>a</think>."),
    "tags in the text": ("split", "<think>a</think>b <think>c</think>", "a", "b <think>c</think>"),
    "an end without a beginning": ("split", "a</think>b", "", "a</think>b"),
    "empty": ("split", "", "", ""),
    "opened by the prompt": ("split_opened", "7 + 5\n</think>\n\nTwelve.", "7 + 5", "Twelve."),
    "opened, and repeated": ("split_opened", "<think>\n7 + 5\n</think>\n\nTwelve.", "7 + 5", "Twelve."),
    "opened and not ended": ("split_opened", "7 + 5", "7 + 5", ""),
    "opened and ended at once": ("split_opened", "</think>b", "", "b"),
}


def split(reasoning: Reasoning, pieces: list[str]) -> tuple[str, str]:
    one = splitter(reasoning)
    assert one is not None
    pairs = [*map(one.feed, pieces), one.end()]
    return "".join(thinking for thinking, _ in pairs), "".join(text for _, text in pairs)


@pytest.mark.parametrize(("reasoning", "text", "thinking", "said"), SPLITS.values(), ids=SPLITS)
def test_thinking_and_text_are_told_apart_wherever_the_text_is_cut(
    reasoning: Reasoning, text: str, thinking: str, said: str
) -> None:
    assert split(reasoning, [text]) == (thinking, said)
    assert split(reasoning, list(text)) == (thinking, said)
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            assert split(reasoning, [text[:first], text[first:second], text[second:]]) == (thinking, said)


def test_what_is_sure_is_not_held_back() -> None:
    one = splitter("split")
    assert one is not None

    assert one.feed("<think>") == ("", "")
    assert one.feed("a b") == ("a b", "")
    assert one.feed("\n") == ("", "")
    assert one.feed("c</th") == ("\nc", "")
    assert not one.is_over
    assert one.feed("ink>\n\nd") == ("", "d")
    assert one.is_over


def test_texts_are_left_alone_by_default() -> None:
    assert splitter("keep") is None


@pytest.mark.parametrize(
    ("said", "both"),
    [
        ({"reasoning": "a"}, {"reasoning": "a", "reasoning_content": "a"}),
        ({"reasoning_content": "a"}, {"reasoning": "a", "reasoning_content": "a"}),
        ({"reasoning": "a", "reasoning_content": None}, {"reasoning": "a", "reasoning_content": "a"}),
        ({"reasoning": "", "reasoning_content": "a"}, {"reasoning": "a", "reasoning_content": "a"}),
    ],
)
def test_one_name_is_given_the_other(said: dict[str, Any], both: dict[str, Any]) -> None:
    assert give_both(said)
    assert said == both


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"content": "a"},
        {"reasoning": None},
        {"reasoning": "a", "reasoning_content": "a"},
        {"reasoning": "a", "reasoning_content": "b"},
        {"reasoning": {"summary": "a"}},
    ],
)
def test_what_needs_no_second_name_is_left_alone(said: dict[str, Any]) -> None:
    before = dict(said)

    assert not give_both(said)
    assert said == before
