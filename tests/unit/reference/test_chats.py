"""app/reference/chats.py, turns.py and differences.py: the chats, as LLaMA-Factory's data has them, and differences."""

from __future__ import annotations

import json

import pytest

from app.reference.chats import CHATS, Chat
from app.reference.differences import difference, differing
from app.reference.turns import job_chat


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_alternates_and_ends_where_the_model_answers(name: str) -> None:
    turns = job_chat(CHATS[name])["turns"]

    assert [turn["role"] in {"user", "observation"} for turn in turns] == [at % 2 == 0 for at in range(len(turns))]
    assert turns[-1]["role"] in {"user", "observation"}


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_is_one_that_json_carries(name: str) -> None:
    chat = CHATS[name]
    body = {"messages": chat.messages, "tools": chat.tools}

    assert json.loads(json.dumps(body)) == {"messages": list(chat.messages), "tools": list(chat.tools)}


def test_the_chats_cover_what_goes_wrong() -> None:
    assert {"one turn", "system", "several turns", "Chinese", "emoji", "thinking", "tools", "tool result"} <= set(CHATS)
    assert sum(1 for chat in CHATS.values() if chat.tools) >= 4
    assert any(chat.messages[0]["role"] == "system" for chat in CHATS.values() if chat.tools)


def test_calls_and_results_become_llamafactorys() -> None:
    job = job_chat(CHATS["two calls"])
    call = {"name": "weather", "arguments": {"city": "Ulm", "days": 2}}

    assert [turn["role"] for turn in job["turns"]] == ["user", "function", "observation"]
    assert json.loads(job["turns"][1]["content"]) == [call, call]
    assert job["turns"][2]["content"] == "fair\n</tool_response>\n<tool_response>\nstill fair"
    assert [function["name"] for function in json.loads(job["tool_text"])] == ["weather"]


def test_a_system_prompt_stands_apart() -> None:
    chat = Chat(({"role": "system", "content": "S"}, {"role": "user", "content": "U"}))

    job = job_chat(chat)

    assert (job["system"], job["turns"], job["tool_text"]) == ("S", [{"role": "user", "content": "U"}], None)


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        ("abc", "abc", None),
        ("abc", "abd", "at character 2: 'abc', not 'abd'"),
        ("abc", "ab", "at character 2: 'abc', not 'ab'"),
        ("", "x", "at character 0: '', not 'x'"),
        ("a" * 50 + "b", "a" * 50 + "c" * 50, f"at character 50: …'{'a' * 24}b', not …'{'a' * 24}{'c' * 24}'…"),
    ],
)
def test_the_first_difference_is_told_with_what_is_around_it(one: str, other: str, sentence: str | None) -> None:
    assert difference(one, other) == sentence


def test_differing_chats_are_told_refused_ones_with_the_reason() -> None:
    result = differing({"a": "x", "b": "y", "c": "z"}, {"a": "x", "b": "w"}, {"c": "no system messages"})

    assert result == {"b": "at character 0: 'y', not 'w'", "c": "it is refused: no system messages"}
