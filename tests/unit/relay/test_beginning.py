"""app/relay/balancing/beginning.py: what two prompts have in common."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.relay.balancing.beginning import BLOCK_BYTES, MAX_BLOCKS, MAX_BYTES, Beginning, beginning, opening
from app.relay.http.json_body import RequestHead

SYSTEM = {"role": "system", "content": "Answer as a lawyer would."}
ASKED = {"role": "user", "content": "What is a lien?"}
TURNS = [
    SYSTEM,
    ASKED,
    {"role": "assistant", "content": 'It is },{"role":"user"} of sorts.'},
    {"role": "user", "content": "Says who?"},
]


def of(messages: list[Any] | None = None, scope: str = "m", **body: object) -> Beginning:
    given = body if messages is None else {"messages": messages, **body}
    made = beginning(msgspec.json.decode(json.dumps(given), type=RequestHead), scope)
    assert made is not None
    return made


def in_common(one: Beginning, other: Beginning) -> int:
    pairs = zip(one.blocks, other.blocks, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one.blocks), len(other.blocks)))


def said(size: int, role: str = "user", letter: str = "x") -> dict[str, str]:
    return {"role": role, "content": letter * size}


@pytest.mark.parametrize("turns", range(1, len(TURNS)))
def test_a_conversation_that_goes_on_has_all_blocks_of_its_turns_before(turns: int) -> None:
    before, now = of(TURNS[:turns]), of(TURNS)

    assert in_common(before, now) == len(before.blocks) == turns


def test_what_a_conversation_says_itself_begins_after_the_instructions() -> None:
    developer = {"role": "developer", "content": "Be brief."}

    assert of(TURNS).own == 1
    assert of([SYSTEM, developer, ASKED]).own == 2
    assert of([ASKED]).own == 0
    assert of([{"content": "late role", "role": "system"}, ASKED]).own == 1
    assert of([SYSTEM]).own == 0
    assert of([17, ASKED]).own == 0
    assert of([]).blocks == []


def test_a_long_message_has_several_blocks_so_that_a_shared_document_is_seen() -> None:
    first = of([said(3 * BLOCK_BYTES) | {"question": "one"}])
    second = of([said(3 * BLOCK_BYTES) | {"question": "two"}])

    assert in_common(first, second) == 3
    assert first.own == len(first.blocks) - 1 == 3
    assert first.ends[:3] == [BLOCK_BYTES, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES]


def test_blanks_between_messages_do_not_matter() -> None:
    spaced = msgspec.json.decode(b'{"messages": [ {"role":"user","content":"x"} ,\n {"a":1} ]}', type=RequestHead)
    dense = msgspec.json.decode(b'{"messages":[{"role":"user","content":"x"},{"a":1}]}', type=RequestHead)

    assert beginning(spaced, "m") == beginning(dense, "m")


def test_another_scope_and_other_tools_have_nothing_in_common() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]

    assert in_common(of(TURNS), of(TURNS, scope="other")) == 0
    assert in_common(of(TURNS), of(TURNS, tools=tools)) == 0
    assert in_common(of(TURNS, tools=tools), of(TURNS, tools=tools)) == len(TURNS)


@pytest.mark.parametrize("first", [100, MAX_BYTES - 70, MAX_BYTES, 3 * MAX_BYTES])
@pytest.mark.parametrize("filling", ["x", "}", '"},{', "\\", "ä"])
def test_a_large_body_is_looked_at_as_far_as_a_limit_and_stays_as_it_was_there(first: int, filling: str) -> None:
    opened = [SYSTEM, said(first // len(json.dumps(filling).strip('"')), letter=filling)]
    before = of(opened)
    now = of([*opened, *(said(20_000, "assistant", filling) for _ in range(12)), ASKED])

    assert now.ends[-1] <= MAX_BYTES
    assert len(now.blocks) <= MAX_BLOCKS
    assert before.own == now.own >= 1
    assert opening(before) == opening(now)
    whole = [end for end in before.ends if end < MAX_BYTES - 100]
    assert in_common(before, now) >= len(whole) - 1


def test_many_small_messages_are_bounded_too() -> None:
    many = of([said(1) for _ in range(5000)])

    assert len(many.blocks) == len(many.ends) == MAX_BLOCKS
    assert in_common(many, of([said(1) for _ in range(4000)])) == MAX_BLOCKS


def test_the_opening_stays_and_differs_between_conversations() -> None:
    other = [SYSTEM, {"role": "user", "content": "What is a deed?"}]

    assert opening(of(TURNS[:2])) == opening(of(TURNS))
    assert opening(of(other)) != opening(of(TURNS))
    long = said(100_000)
    assert opening(of([long | {"end": 1}])) != opening(of([long | {"end": 2}]))
    assert len(opening(of([long]))) < 20_000


@pytest.mark.parametrize("size", [10, 1500, 5000, 9000])
def test_a_completion_that_goes_on_keeps_its_whole_blocks(size: int) -> None:
    text = "abcdefgh" * (size // 8)

    before, now = of(prompt=text), of(prompt=text + "and more" * 2000)

    assert in_common(before, now) == len(before.blocks)
    assert len(before.blocks) == {10: 0, 1500: 1, 5000: 4, 9000: 5}[size]
    assert before.own >= len(before.blocks)
    assert (opening(before) == opening(now)) is (size > 1024)


def test_what_has_no_prompt_has_no_beginning() -> None:
    assert beginning(RequestHead(), "m") is None
    assert beginning(msgspec.json.decode(b'{"prompt": 5}', type=RequestHead), "m") is None
    assert of(prompt=[1, 2, 3]).blocks == []
