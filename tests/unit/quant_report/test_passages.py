"""Reading the text that models are measured on, with what real files bring along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.quant_report.passages import Passage, TextProblem, parse, plain, read

ALPACA = {"instruction": "Add.", "input": "7 and 5", "output": "12"}
SHAREGPT = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}
OPENAI = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}


def messages(*turns: tuple[str, str]) -> tuple[dict[str, str], ...]:
    return tuple({"role": role, "content": content} for role, content in turns)


def one(record: Any, name: str = "data.json") -> Passage:
    (passage,) = parse(name, json.dumps([record]).encode()).passages
    return passage


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (ALPACA, messages(("user", "Add.\n7 and 5"), ("assistant", "12"))),
        ({"instruction": "Hi", "output": "Yes"}, messages(("user", "Hi"), ("assistant", "Yes"))),
        ({"instruction": "", "input": "x", "output": "y"}, messages(("user", "x"), ("assistant", "y"))),
        (
            {"instruction": "C", "output": "D", "system": "S", "history": [["A", "B"]]},
            messages(("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D")),
        ),
        (SHAREGPT, messages(("user", "Hi"), ("assistant", "Hello!"))),
        ({**SHAREGPT, "system": "S"}, messages(("system", "S"), ("user", "Hi"), ("assistant", "Hello!"))),
        (OPENAI, messages(("user", "Hi"), ("assistant", "Hello!"))),
        ({"prompt": "Hi", "completion": "Yes"}, messages(("user", "Hi"), ("assistant", "Yes"))),
    ],
)
def test_each_shape_of_training_data_becomes_messages(record: Any, expected: Any) -> None:
    assert one(record).messages == expected


def test_tools_and_calls_of_training_data_become_openais() -> None:
    tool = {"name": "add", "parameters": {}}
    turns = [
        {"from": "human", "value": "7+5?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 7}}'},
        {"from": "observation", "value": "12"},
        {"from": "gpt", "value": "It is 12."},
    ]

    passage = one({"conversations": turns, "tools": json.dumps([tool])})

    assert [message["role"] for message in passage.messages] == ["user", "assistant", "tool", "assistant"]
    assert passage.messages[1]["tool_calls"] == [
        {"type": "function", "function": {"name": "add", "arguments": '{"a": 7}'}}
    ]
    assert passage.tools == ({"type": "function", "function": tool},)


def test_lines_are_read_and_those_that_are_no_use_are_counted() -> None:
    lines = [json.dumps(ALPACA), "", "{half", json.dumps({"a": 1}), json.dumps("a text"), "[1]"]

    text = parse("data.jsonl", "\n".join(lines).encode())

    assert len(text.passages) == 2
    assert (text.skipped, text.first_skipped) == (3, "line 3: it is not JSON")
    assert text.kind == "mixed records"


def test_lines_in_a_file_that_is_called_json_are_read_too() -> None:
    assert len(parse("data.json", f"{json.dumps(OPENAI)}\n{json.dumps(OPENAI)}\n".encode()).passages) == 2


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf", b""])
def test_a_byte_order_mark_is_no_part_of_the_text(data: bytes) -> None:
    assert parse("a.json", data + json.dumps([ALPACA]).encode()).kind == "Alpaca"
    assert parse("a.txt", data + b"Hello").passages == (Passage(text="Hello"),)


def test_utf_16_as_windows_writes_it_is_read() -> None:
    assert parse("a.txt", "Grüße\r\nan alle".encode("utf-16")).passages == (Passage(text="Grüße\nan alle"),)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a", "a.py"])
def test_what_is_no_json_is_a_text_as_a_whole(name: str) -> None:
    assert parse(name, b"Water boils.\n\nAt sea level.") == parse(name, b"Water boils.\r\n\r\nAt sea level.")
    assert parse(name, b"Water boils.").passages == (Passage(text="Water boils."),)


def test_a_text_file_that_begins_with_a_bracket_stays_a_text() -> None:
    assert parse("a.txt", b"[1] is a note.").kind == "text"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b" \n", "'a.txt' is empty"),
        ("a.txt", b"\xff\x00\x80", "is not text in UTF-8"),
        ("a.json", b'{"instruction": ', "'a.json' is not JSON"),
        ("a.json", b"[]", "has no record that can be used"),
        ("a.json", b'[{"id": 1}]', r"record 1: its members are id"),
        ("a.json", b'[{"instruction": "x", "output": ""}]', "instruction and output have to be texts"),
        ("a.json", b'[{"instruction": "x", "output": "y", "history": [["a"]]}]', "its history is not a list of pairs"),
        ("a.json", b"[7]", "record 1: it is int, not an object"),
        ("a.jsonl", b"{\n{\n", "line 1: it is not JSON"),
        ("a.json", b'[{"conversations": [{"from": "alien", "value": "x"}]}]', "a turn is from 'alien'"),
        ("a.json", b'[{"conversations": [{"from": "human", "value": "x"}]}]', "nobody answers in it"),
        ("a.json", b'[{"messages": ["x"]}]', "a turn is not an object"),
        ("a.json", b'[{"messages": [{"role": "user", "content": [1]}]}]', "a turn of 'user' is not a text"),
        ("a.json", b'[{"conversations": [{"from": "function_call", "value": "x"}]}]', "a function call is not JSON"),
    ],
)
def test_a_text_that_cannot_be_used_is_one_sentence(name: str, data: bytes, words: str) -> None:
    with pytest.raises(TextProblem, match=words) as caught:
        parse(name, data)

    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TextProblem, match=r"no-such\.json. cannot be read: No such file"):
        read(tmp_path / "no-such.json")


def test_conversations_are_taken_in_an_order_of_their_own_that_is_always_the_same() -> None:
    records = [{"text": str(index)} for index in range(50)]
    data = json.dumps(records).encode()

    taken = [passage.text for passage in parse("a.json", data).passages]

    assert sorted(taken, key=int) == [str(index) for index in range(50)] != taken
    assert taken == [passage.text for passage in parse("a.json", data).passages]


def test_without_a_file_there_is_a_text_in_three_languages_and_code() -> None:
    text = read(None)

    (passage,) = text.passages
    assert len(passage.text) > 8_000
    assert all(word in passage.text for word in ("lighthouse", "Uhrmacher", "图书馆", "def count(", "SELECT"))


def test_a_conversation_without_a_template_is_what_was_said() -> None:
    assert plain(one(SHAREGPT)) == Passage(text="Hi\n\nHello!")
    assert plain(Passage(text="as it is")) == Passage(text="as it is")
