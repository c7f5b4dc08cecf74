"""The prompt of a completion and the input of embeddings: texts, or tokens, of which there may be millions. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import Raw

from app.errors import Problem, bad_request

# A list of numbers, or of such lists: with these taken away nothing is left.
_OF_TOKENS: Final = b"0123456789[], \t\r\n"
_TOO_LONG_A_NUMBER: Final = re.compile(rb"[0-9]{11}")
_BLANK: Final = re.compile(rb"[ \t\r\n]*")
_STEP_BYTES: Final = 64 * 1024
_lists = msgspec.json.Decoder(list[Raw])


def check_prompt(field: str, raw: Raw, most: int | None = None) -> None:
    """Problem (400) unless `raw`, the value of `field`, is a text, a list of texts, a list of tokens, or a list of such
    lists, and not empty. `most`: so many items at most.
    """
    start = bytes(memoryview(raw)[:1])
    if start == b'"':
        if field == "input" and len(memoryview(raw)) == 2:
            raise bad_request("'input' is empty.", param=field, code="invalid_value")
        return
    wrong = bad_request(
        f"'{field}' must be a string, a list of strings, a list of tokens, or a list of such lists.",
        param=field,
        code="invalid_type",
    )
    if start != b"[":
        raise wrong
    view = memoryview(raw)
    if not _is_of_tokens(view):
        _check_texts(field, raw, most, wrong)
        return
    inner = _first(view)
    if inner == b"]":
        raise bad_request(f"'{field}' is empty.", param=field, code="invalid_value")
    if inner == b"[":
        lists = _lists.decode(raw)
        if any(bytes(memoryview(each)[:1]) != b"[" or bytes(each).count(b"[") > 1 for each in lists):
            raise wrong
        if any(_first(memoryview(each)) == b"]" for each in lists):
            raise bad_request(f"'{field}' holds an empty list.", param=field, code="invalid_value")
        _check_most(field, len(lists), most)
    elif _count(view, b"[") > 1:
        raise wrong


def _check_texts(field: str, raw: Raw, most: int | None, wrong: Problem) -> None:
    texts = _lists.decode(raw)
    if not texts or any(bytes(memoryview(each)[:1]) != b'"' for each in texts):
        raise wrong
    _check_most(field, len(texts), most)


def _check_most(field: str, count: int, most: int | None) -> None:
    if most is not None and count > most:
        message = f"'{field}' holds at most {most} at once, and has {count}."
        raise bad_request(message, param=field, code="invalid_value")


def _is_of_tokens(view: memoryview) -> bool:
    """Whether a list holds nothing but token numbers, by its bytes: there may be millions."""
    for start in range(0, len(view), _STEP_BYTES):
        piece = bytes(view[start : start + _STEP_BYTES + 10])
        if piece.translate(None, _OF_TOKENS) or _TOO_LONG_A_NUMBER.search(piece):
            return False
    return True


def _count(view: memoryview, wanted: bytes) -> int:
    return sum(bytes(view[at : at + _STEP_BYTES]).count(wanted) for at in range(0, len(view), _STEP_BYTES))


def _first(view: memoryview) -> bytes:
    """The first byte behind a list's bracket that is not blank."""
    blank = _BLANK.match(view, 1)
    at = blank.end() if blank is not None else 1
    return bytes(view[at : at + 1])
