"""Texts of others on a terminal: what models, files and engines say may not steer it. Pure."""

from __future__ import annotations

import re

# Controls (a terminal obeys escape sequences), and marks that turn the order of what is around them.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def terminal_text(text: str) -> str:
    """The text with U+FFFD for all that a terminal would obey; lines and tabs stay."""
    return _STEERING.sub("\ufffd", text.replace("\r\n", "\n"))


def terminal_line(text: str) -> str:
    """The same as one line."""
    return " ".join(terminal_text(text).split("\n"))
