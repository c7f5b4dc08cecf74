"""Whatever an engine says of a failure becomes one line that a client may read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialects.error_text import MAX_CHARS, ErrorText, one_line, read
from tests.fakes import wire

UNSAID = "it failed and gave no reason that can be shown"
TRACE = 'Traceback (most recent call last):\n  File "/srv/x.py", line 7, in step\nRuntimeError: boom'

LINES: dict[str, tuple[Any, str]] = {
    "text": ("boom", "boom"),
    "lines and blanks": ("  one\n\ttwo \r\n three ", "one two three"),
    "message": ({"message": "boom", "code": 7}, "boom"),
    "detail": ({"detail": "boom"}, "boom"),
    "error": ({"error": {"message": "boom"}}, "boom"),
    "details": ([{"loc": ["body"], "msg": "missing"}, {"msg": "wrong"}], "missing; wrong"),
    "JSON inside text": ('{"error":{"message":"the runner died"}}', "the runner died"),
    "broken JSON inside text": ('{"error": {', '{"error": {'),
    "traceback": (TRACE, UNSAID),
    "traceback inside": ({"message": TRACE}, UNSAID),
    "one frame": ('failed in File "/srv/x.py", line 7', UNSAID),
    "nothing": (None, UNSAID),
    "empty": ("", UNSAID),
    "number": (7, UNSAID),
    "empty object": ({}, UNSAID),
    "empty list": ([], UNSAID),
    "message null": ({"message": None}, UNSAID),
    "long": ("x" * 1000, "x" * (MAX_CHARS - 1) + "…"),
}


@pytest.mark.parametrize(("value", "expected"), LINES.values(), ids=LINES)
def test_an_error_value_becomes_one_line(value: Any, expected: str) -> None:
    assert one_line(value) == expected


BODIES: dict[str, ErrorText] = {
    "vllm": ErrorText(wire.REFUSAL, "BadRequestError"),
    "openai": ErrorText(wire.REFUSAL, "invalid_request_error", "messages", "engine_code"),
    "llama_cpp": ErrorText(wire.REFUSAL, "invalid_request_error"),
    "string": ErrorText("Unauthorized"),
    "detail": ErrorText(wire.REFUSAL),
    "detail_list": ErrorText(wire.REFUSAL),
    "traceback": ErrorText(UNSAID),
    "empty": ErrorText(UNSAID),
}


@pytest.mark.parametrize(("dialect", "expected"), BODIES.items(), ids=BODIES)
def test_each_dialect_of_error_body_is_understood(dialect: str, expected: ErrorText) -> None:
    assert read(wire.error_body(dialect, 400)[0]) == expected


def test_every_dialect_has_its_case() -> None:
    assert set(BODIES) == set(wire.DIALECTS)


ODD: dict[str, tuple[bytes, str]] = {
    "html": (b"<html><body>Bad Gateway</body></html>", UNSAID),
    "plain text": (b"upstream connect error", "upstream connect error"),
    "bad utf-8": (b"caf\xff", "caf\N{REPLACEMENT CHARACTER}"),
    "bad utf-8 in JSON": (b'{"error":"caf\xff"}', "caf\N{REPLACEMENT CHARACTER}"),
    "a string": (b'"no"', "no"),
    "null": (b"null", UNSAID),
    "deep": (b'{"message":' * 500 + b'"x"' + b"}" * 500, UNSAID),
    "too deep to read": (b"[" * 100_000, "[" * (MAX_CHARS - 1) + "…"),
}


@pytest.mark.parametrize(("body", "expected"), ODD.values(), ids=ODD)
def test_an_odd_error_body_is_no_error_of_ours(body: bytes, expected: str) -> None:
    assert read(body).message == expected


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["message", "error", "x"]), inner)


NESTED = st.recursive(st.none() | st.integers() | st.text(), nested)


@given(NESTED)
def test_any_json_becomes_one_short_line_without_breaks(value: Any) -> None:
    message = read(json.dumps(value).encode()).message

    assert 0 < len(message) <= MAX_CHARS
    assert message == " ".join(message.split())
