"""Thinking of earlier turns: read under either name, told under both."""

from __future__ import annotations

import json

import pytest

from app.relay.planning.reasoning_fields import with_both_names

ASKED = b'{"role": "user", "content": "7+5?"}'
SAID = b'{"role": "assistant", "content": "12.", '


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("rest", [b"", b', "reasoning": null', b', "reasoning_content": ""'])
def test_one_name_becomes_two_and_the_rest_keeps_its_bytes(name: str, rest: bytes) -> None:
    if name.encode() + b'"' in rest:
        rest = b""
    body = b'{"model":"m", "messages": [%b, %b"%b": "7 \\u002b 5"%b}, %b], "top_p": 1e0}' % (
        ASKED,
        SAID,
        name.encode(),
        rest,
        ASKED,
    )

    told = with_both_names(body)

    said = json.loads(told)["messages"][1]
    assert (said["reasoning"], said["reasoning_content"]) == ("7 + 5", "7 + 5")
    assert said["content"] == "12."
    assert told.count(ASKED) == 2
    assert b'"top_p":1e0' in told
    assert with_both_names(told) == told


UNTOUCHED = {
    "no thinking": b'{"messages": [%b]}' % ASKED,
    "effort": b'{"messages": [%b], "reasoning_effort": "low", "reasoning": {"effort": "low"}}' % ASKED,
    "two thoughts": b'{"messages": [%b"reasoning": "a", "reasoning_content": "b"}]}' % SAID,
    "a user's": b'{"messages": [{"role": "user", "content": "x", "reasoning": "a"}]}',
    "in a text": b'{"messages": [{"role": "user", "content": "say \\"reasoning\\": 1"}]}',
    "no text": b'{"messages": [%b"reasoning": {"a": 1}}]}' % SAID,
    "empty": b'{"messages": [%b"reasoning": ""}]}' % SAID,
    "no objects": b'{"messages": ["reasoning", 7]}',
    "no list": b'{"messages": "reasoning", "reasoning": 1}',
}


@pytest.mark.parametrize("body", UNTOUCHED.values(), ids=UNTOUCHED)
def test_everything_else_is_left_alone(body: bytes) -> None:
    assert with_both_names(body) is body
