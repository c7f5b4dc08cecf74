"""Events of a stream that differ from one that was understood in their text only. Pure.

Engines write thousands of them for an answer. Decoding each would cost more than passing it on, so what is known of one
is compared as bytes: everything before and behind its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_INNER = rb'(?:[^"\\\x00-\x1f]++|\\.)*+'
_TEXTS = re.compile(rb'"(?:content|text|reasoning|reasoning_content|arguments)": ?"(' + _INNER + rb')"')
_INSIDE = re.compile(_INNER)
# Stands for the text while it is found out what becomes of an event.
_PLACE = b"(modelport:the-text)"


class Stencil:
    """One event without its text, and what the client gets for it."""

    def __init__(self, given: list[bytes], made: list[bytes] | None) -> None:
        self._begin, *between, self._end = given
        self._between = between
        self._made = made  # None: the very same
        self._joint = self._end + self._begin
        self._size = len(self._begin) + len(self._end)

    def fill(self, whole: bytes) -> tuple[int, bytes] | None:
        """How many events these bytes are, and what the client gets for them; None when one is of another kind."""
        if not (whole.startswith(self._begin) and whole.endswith(self._end) and len(whole) >= self._size):
            return None
        inner = whole[len(self._begin) : len(whole) - len(self._end)]
        if not self._between and _INSIDE.fullmatch(inner):
            return 1, whole if self._made is None else inner.join(self._made)
        texts = []
        for piece in inner.split(self._joint):
            text = self._text(piece)
            if text is None:
                return None
            texts.append(text)
        made = self._made
        return len(texts), whole if made is None else b"".join([text.join(made) for text in texts])

    def _text(self, piece: bytes) -> bytes | None:
        """The text of one event, which may say it more than once."""
        times = len(self._between) + 1
        size = (len(piece) - sum(map(len, self._between))) // times
        text = piece[: max(0, size)]
        is_it = piece == text.join([b"", *self._between, b""]) and _INSIDE.fullmatch(text) is not None
        return text if is_it else None


def cut(event: bytes, made_of: Callable[[bytes], bytes]) -> Stencil | None:
    """The stencil of an event with text; None when it has none, or two that differ.

    `made_of`: what the client gets for an event like it.
    """
    found = [match for match in _TEXTS.finditer(event) if match.group(1)]
    if not found or len({match.group(1) for match in found}) > 1 or _PLACE in event:
        return None
    given, at = [], 0
    for match in found:
        given.append(event[at : match.start(1)])
        at = match.end(1)
    given.append(event[at:])
    probe = _PLACE.join(given)
    made = made_of(probe)
    pieces = made.split(_PLACE)
    if len(pieces) == 1:
        return None
    return Stencil(given, None if made == probe else pieces)
