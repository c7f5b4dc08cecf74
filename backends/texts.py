"""Joining texts (the parts of a message, the blocks of a tool's result), and encoding long ones as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

# Longer texts are encoded piece by piece: 15 million line ends in one call block every other thread for 0.1 s.
PIECE_CHARACTERS: Final = 2**20


def joined(texts: Iterable[str]) -> str:
    """One text, each part on lines of its own, empty parts left out. vLLM does the same with a message's parts where a
    template takes text only.

    Joined with nothing between them, "count: 12" and "34 rows" would say "count: 1234 rows".
    """
    return "\n".join(text for text in texts if text)


def encoded(value: Any) -> bytes:
    """The value as JSON, as msgspec encodes it. Other threads can run between the pieces of its long texts."""
    return msgspec.json.encode(_in_pieces(value))


def _in_pieces(value: Any) -> Any:
    """The same value, with its long texts encoded already."""
    match value:
        case str() if len(value) > PIECE_CHARACTERS:
            pieces = [value[at : at + PIECE_CHARACTERS] for at in range(0, len(value), PIECE_CHARACTERS)]
            return msgspec.Raw(b'"' + b"".join(msgspec.json.encode(piece)[1:-1] for piece in pieces) + b'"')
        case dict():
            return {name: _in_pieces(each) for name, each in value.items()}
        case list():
            return [_in_pieces(each) for each in value]
    return value
