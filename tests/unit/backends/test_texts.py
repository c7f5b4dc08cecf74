"""Long texts as JSON."""

from __future__ import annotations

import msgspec
import pytest

from backends.texts import PIECE_CHARACTERS, encoded


@pytest.mark.parametrize("piece", ["a", "\n", "\\", '"', "ü", "😀", "\x00"])
def test_a_long_text_is_encoded_as_a_short_one_is(piece: str) -> None:
    text = "x" + piece * (2 * PIECE_CHARACTERS + 7)
    value = {"model": "m", "messages": [{"role": "user", "content": text}, {"content": [{"text": text}, 1, None]}]}

    assert encoded(value) == msgspec.json.encode(value)
