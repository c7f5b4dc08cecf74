"""A model's reasoning: the two names that it has in messages, and the tags around it in a text. Pure."""

from __future__ import annotations

import enum
from collections.abc import MutableMapping
from typing import Any, Final, Literal

NAMES: Final = ("reasoning", "reasoning_content")
# What is done to a model's texts: `keep` leaves them alone, `split` takes what stands between tags at the beginning for
# thinking, `split_opened` also where the prompt has opened the tag already.
Reasoning = Literal["keep", "split", "split_opened"]

_OPEN, _CLOSE = "<think>", "</think>"
_CLOSE_PARTS = tuple(_CLOSE[:size] for size in range(len(_CLOSE) - 1, 0, -1))


def give_both(message: MutableMapping[str, Any]) -> bool:
    """Give thinking that a message or delta has under one name the other as well; whether anything changed."""
    first, second = message.get(NAMES[0]), message.get(NAMES[1])
    value = first or second
    if not value or not isinstance(value, str) or (first and second):
        return False
    message[NAMES[0]] = message[NAMES[1]] = value
    return True


class _At(enum.Enum):
    BEGINNING = enum.auto()
    THINKING = enum.auto()
    BETWEEN = enum.auto()  # behind the end tag, before the text
    TEXT = enum.auto()


class Splitter:
    """One text that comes in pieces, cut anywhere. Only tags at its beginning count; line breaks beside them go too.

    `is_opened`: it begins inside thinking, whether or not it repeats the tag.
    """

    def __init__(self, *, is_opened: bool) -> None:
        self._is_opened = is_opened
        self._at = _At.BEGINNING
        self._held = ""  # what may yet turn out to be a tag, or line breaks before one
        self._is_fresh = False  # nothing has been thought yet

    @property
    def is_over(self) -> bool:
        """Whether everything from now on is text."""
        return self._at is _At.TEXT

    def feed(self, piece: str) -> tuple[str, str]:
        """The thinking and the text that are certain by now and were not given before."""
        if self._at is _At.TEXT:
            return "", piece
        rest, self._held = self._held + piece, ""
        thinking = ""
        if self._at is _At.BEGINNING:
            rest = self._begin(rest)
        if self._at is _At.THINKING:
            thinking, rest = self._think(rest)
        if self._at is _At.BETWEEN:
            rest = rest.lstrip("\n")
            self._at = _At.TEXT if rest else _At.BETWEEN
        return thinking, rest

    def end(self) -> tuple[str, str]:
        """No more comes: the thinking and the text that were held back."""
        held, self._held = self._held, ""
        is_thinking = self._at is _At.THINKING or (self._at is _At.BEGINNING and self._is_opened)
        self._at = _At.TEXT
        return (held, "") if is_thinking else ("", held)

    def _begin(self, text: str) -> str:
        """The text behind the beginning, once it is clear what that is; until then "", and all is held back."""
        bare = text.lstrip()
        if bare.startswith(_OPEN):
            self._at, self._is_fresh = _At.THINKING, True
            return bare[len(_OPEN) :]
        if _OPEN.startswith(bare):
            self._held = text
            return ""
        self._at = _At.THINKING if self._is_opened else _At.TEXT
        return text

    def _think(self, text: str) -> tuple[str, str]:
        if self._is_fresh:
            text = text.lstrip("\n")
            self._is_fresh = not text
        thinking, tag, rest = text.partition(_CLOSE)
        if tag:
            self._at = _At.BETWEEN
            return thinking.rstrip("\n"), rest
        part = next((part for part in _CLOSE_PARTS if text.endswith(part)), "")
        sure = text.removesuffix(part).rstrip("\n")
        self._held = text[len(sure) :]
        return sure, ""


def splitter(reasoning: Reasoning) -> Splitter | None:
    """A splitter for one text of a model with that setting; None where texts are left alone."""
    return None if reasoning == "keep" else Splitter(is_opened=reasoning == "split_opened")
