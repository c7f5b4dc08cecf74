"""System messages where a template takes none: which conversations are looked at, and what becomes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.dialects.chat_templates import ALL, TemplateSupport
from app.relay.planning.fold_system_messages import (
    AT_FRONT,
    MAX_MESSAGES,
    NOWHERE,
    USUAL,
    TemplateShape,
    fold,
    is_about_roles,
    next_support,
    shape,
)
from backends.errors import BackendError, Disconnected, EngineFailed, Rejected
from backends.prompt_too_long import Length, TooLong

NOTE = "<system-reminder>\n{}\n</system-reminder>"
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "7"}


def said(*turns: str) -> list[dict[str, Any]]:
    """`s`, `d`, `u` or `a`, and what is said."""
    names = {"s": "system", "d": "developer", "u": "user", "a": "assistant"}
    return [{"role": names[turn[0]], "content": turn[1:]} for turn in turns]


def body(messages: list[dict[str, Any]], **more: Any) -> bytes:
    return json.dumps({"model": "m", **more, "messages": messages}).encode()


SHAPES: dict[str, tuple[list[dict[str, Any]], TemplateShape | None]] = {
    "a question": (said("u1"), None),
    "the usual": (said("s0", "u1", "a2", "u3"), USUAL),
    "several": (said("s0", "s1", "u2"), TemplateShape(True, True, False, False)),
    "a later one": (said("u1", "s2"), TemplateShape(False, False, True, False)),
    "one in the middle": (said("s0", "u1", "a2", "s3", "u4"), TemplateShape(True, False, True, False)),
    "a developer": (said("d0", "u1"), TemplateShape(True, False, False, True)),
    "both": (said("s0", "d1", "u2", "d3"), TemplateShape(True, True, True, True)),
    "nobody else": (said("s0"), USUAL),
    "the word in a text": (said("s0", 'uthe word "system"', 'a"system"'), USUAL),
    "the word in a question": (said('usay "system"'), None),
}


@pytest.mark.parametrize(("messages", "expected"), SHAPES.values(), ids=SHAPES)
def test_only_conversations_with_such_messages_are_looked_at(
    messages: list[dict[str, Any]], expected: TemplateShape | None
) -> None:
    assert shape(body(messages)) == expected


def test_a_tool_that_speaks_of_systems_makes_no_conversation_unusual() -> None:
    tools = [{"type": "function", "function": {"name": "system", "parameters": {"enum": ["system", "developer"]}}}]

    assert shape(body(said("s0", "u1"), tools=tools)) == USUAL
    assert shape(body(said("u1"), tools=tools)) is None


@pytest.mark.parametrize("text", [b'{"messages":7,"x":"developer"}', b'{"messages":[7,"developer"]}', b'"developer"'])
def test_what_is_no_conversation_is_left_to_the_engine(text: bytes) -> None:
    assert shape(text) is None
    assert fold(text, NOWHERE) is None


@pytest.mark.parametrize("content", ["[1,2]", "7", "{}", '[{"type":"text"},7]'])
def test_content_that_is_none_is_left_to_the_engine(content: str) -> None:
    text = b'{"messages":[{"role":"user","content":"a"},{"role":"system","content":' + content.encode() + b"}]}"

    made = fold(text, AT_FRONT)

    assert made is None or json.loads(made)[0]["content"] == "a"


def test_text_keeps_its_spelling() -> None:
    text = b'{"messages":[{"role":"user","content":"\\u0041\\/\\""},{"role":"system","content":"\\u0042"}]}'

    made = fold(text, AT_FRONT)

    assert made == b'[{"role":"user","content":"\\u0041\\/\\"\\n\\n<system-reminder>\\n\\u0042\\n</system-reminder>"}]'


def test_an_endless_conversation_is_left_as_it_is() -> None:
    assert shape(body(said("u1", *["s2"] * (MAX_MESSAGES + 1)))) is None


FOLDED: dict[str, tuple[TemplateSupport, list[dict[str, Any]], list[dict[str, Any]]]] = {
    "behind the user": (AT_FRONT, said("s0", "u1", "s2"), said("s0", "u1\n\n" + NOTE.format(2))),
    "before the user": (
        AT_FRONT,
        said("s0", "u1", "a2", "s3", "u4"),
        said("s0", "u1", "a2", "u" + NOTE.format(3) + "\n\n4"),
    ),
    "behind an earlier user": (
        AT_FRONT,
        said("u1", "s2", "a3", "u4"),
        said("u1\n\n" + NOTE.format(2), "a3", "u4"),
    ),
    "between two users": (AT_FRONT, said("u1", "s2", "u3", "a4"), said("u1\n\n" + NOTE.format(2) + "\n\n3", "a4")),
    "users who follow each other stay so": (AT_FRONT, said("u1", "u2", "s3"), said("u1", "u2\n\n" + NOTE.format(3))),
    "several notes": (
        AT_FRONT,
        said("u1", "s2", "d3"),
        said("u1\n\n" + NOTE.format(2) + "\n\n" + NOTE.format(3)),
    ),
    "behind an answer at the end": (AT_FRONT, said("u1", "a2", "s3"), said("u1", "a2", "u" + NOTE.format(3))),
    "between answers": (AT_FRONT, said("u1", "a2", "s3", "a4"), said("u1", "a2", "u" + NOTE.format(3), "a4")),
    "a note that is marked already": (
        AT_FRONT,
        said("u1", "s<system-reminder>x</system-reminder>"),
        said("u1\n\n<system-reminder>x</system-reminder>"),
    ),
    "several at the beginning": (AT_FRONT, said("s0", "d1", "u2"), said("s0\n\n1", "u2")),
    "several where they are taken": (TemplateSupport(late=False), said("s0", "d1", "u2"), said("s0", "s1", "u2")),
    "no system at all": (NOWHERE, said("s0", "u1", "a2", "u3"), said("u0\n\n1", "a2", "u3")),
    "no system, several": (NOWHERE, said("s0", "s1", "u2", "s3"), said("u0\n\n1\n\n2\n\n" + NOTE.format(3))),
    "no system, and an answer first": (NOWHERE, said("s0", "a1", "u2"), said("u0", "a1", "u2")),
    "no system, and nobody else": (NOWHERE, said("s0"), said("u0")),
    "a developer": (ALL, said("d0", "u1", "d2"), said("s0", "u1", "s2")),
    "a developer, and late ones are taken": (TemplateSupport(several=False), said("u1", "d2"), said("u1", "s2")),
    "between a call and its result": (
        AT_FRONT,
        [*said("u1"), CALL, *said("s2"), RESULT, *said("a3")],
        [*said("u1"), CALL, RESULT, *said("u" + NOTE.format(2), "a3")],
    ),
    "behind a result": (
        AT_FRONT,
        [*said("u1"), CALL, RESULT, *said("s2")],
        [*said("u1"), CALL, RESULT, *said("u" + NOTE.format(2))],
    ),
    "a user's parts": (
        AT_FRONT,
        [{"role": "user", "content": [{"type": "text", "text": "1"}, PICTURE]}, *said("s2", "u3")],
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "1"},
                    PICTURE,
                    {"type": "text", "text": NOTE.format(2)},
                    {"type": "text", "text": "3"},
                ],
            }
        ],
    ),
    "a note in parts": (
        AT_FRONT,
        [*said("u1"), {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        said("u1\n\n" + NOTE.format("a\n\nb")),
    ),
    "a note with a picture": (
        AT_FRONT,
        [*said("u1"), {"role": "system", "content": [PICTURE]}],
        [{"role": "user", "content": [{"type": "text", "text": "1"}, PICTURE]}],
    ),
    "a user without content": (AT_FRONT, [{"role": "user"}, *said("s2")], said("u" + NOTE.format(2))),
    "a name stays": (
        AT_FRONT,
        [{"role": "user", "name": "Ada", "content": "1"}, *said("s2")],
        [{"role": "user", "name": "Ada", "content": "1\n\n" + NOTE.format(2)}],
    ),
}


@pytest.mark.parametrize(("takes", "messages", "expected"), FOLDED.values(), ids=FOLDED)
def test_each_is_told_where_it_stood(
    takes: TemplateSupport, messages: list[dict[str, Any]], expected: list[dict[str, Any]]
) -> None:
    made = fold(body(messages), takes)

    assert made is not None
    assert json.loads(made) == expected


@pytest.mark.parametrize(("takes", "messages", "expected"), FOLDED.values(), ids=FOLDED)
def test_what_is_folded_stays_so(
    takes: TemplateSupport, messages: list[dict[str, Any]], expected: list[dict[str, Any]]
) -> None:
    assert fold(body(expected), takes) is None


def test_other_messages_keep_their_bytes() -> None:
    odd = b'{"content" : "\\u0041",  "role":"user", "n": 1.0}'
    text = b'{"messages":[' + odd + b',{"role":"assistant","content":"b"},{"role":"system","content":"c"}]}'

    made = fold(text, AT_FRONT)

    assert made is not None
    assert made.startswith(b"[" + odd + b',{"role":"assistant","content":"b"},')
    assert fold(text, ALL) is None


def test_a_conversation_that_grows_keeps_what_was_folded() -> None:
    """So that an engine finds the prompt of the last turn again."""
    first = said("s0", "u1", "s2")
    second = [*first, *said("a3", "u4")]

    before, after = (fold(body(each), AT_FRONT) for each in (first, second))

    assert before is not None
    assert after is not None
    assert after.startswith(before[:-1])


# -- refusals


def rejected(message: str, status: int = 400) -> Rejected:
    return Rejected("engine", message, status=status, type_="invalid_request_error", code="invalid_request")


LATE = said("s0", "u1", "s2")
REFUSALS: dict[str, tuple[BackendError, list[dict[str, Any]], TemplateSupport | None, TemplateSupport | None]] = {
    "first only": (rejected("System message must be at the beginning."), LATE, None, AT_FRONT),
    "come first": (rejected("System message must come first."), LATE, None, AT_FRONT),
    "alternate": (rejected("Conversation roles must alternate user/assistant"), LATE, None, AT_FRONT),
    "unexpected": (rejected("Unexpected role."), said("d0", "u1"), None, ALL),
    "unexpected, and a later one": (rejected("Unexpected role."), said("u1", "d2"), None, ALL),
    "unexpected once more": (rejected("Unexpected role."), said("d0", "u1"), ALL, NOWHERE),
    "a list of roles": (rejected("Input should be 'user', 'assistant' or 'tool'", 422), LATE, None, AT_FRONT),
    "unprocessable": (rejected("Jinja: no", 422), LATE, None, AT_FRONT),
    "none": (rejected("System role not supported"), LATE, None, NOWHERE),
    "none at the beginning": (rejected("System role not supported"), said("s0", "u1"), None, NOWHERE),
    "only two": (rejected("Only user and assistant roles are supported!"), LATE, None, NOWHERE),
    "again": (rejected("Conversation roles must alternate"), LATE, AT_FRONT, NOWHERE),
    "known to take all": (rejected("System message must be at the beginning."), LATE, ALL, AT_FRONT),
    "by a failure": (EngineFailed("engine", "Jinja Exception: System message must be first"), LATE, None, AT_FRONT),
    "nothing is left": (rejected("Conversation roles must alternate"), LATE, NOWHERE, None),
    "nothing to fold": (rejected("System role not supported"), said("u1"), None, None),
    "a quoted role": (rejected("bad request: 'system' may only be first"), LATE, None, AT_FRONT),
    "a place": (rejected("system must be at the start"), LATE, None, AT_FRONT),
    "an order": (rejected("wrong order of messages"), LATE, None, AT_FRONT),
    "another thing": (rejected("'top_p' must be at most 1"), LATE, None, None),
    "another failure": (EngineFailed("engine", "a role of the cluster failed"), LATE, None, None),
    "another status": (rejected("roles", 404), LATE, None, None),
    "a cut": (Disconnected("engine", "system message must be first"), LATE, None, None),
    "too long": (TooLong("engine", Length(5, 4)), LATE, None, None),
}


@pytest.mark.parametrize(("error", "messages", "sent", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_of_roles_is_answered_by_the_next_support(
    error: BackendError, messages: list[dict[str, Any]], sent: TemplateSupport | None, expected: TemplateSupport | None
) -> None:
    support = next_support(body(messages), error, sent) if is_about_roles(error) else None

    assert support == expected
