"""A text as the pieces that two texts are compared by: words, numbers, symbols, Chinese (Japanese …) characters."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from app.comparison.question import is_dense

# Full-width forms as usual ones; every kind of minus and apostrophe as one. NFKC would make 10² equal to 102.
_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SAME: Final = {
    **_WIDTH,
    0x3000: " ",
    0x2212: "-",
    0x2019: "'",
    0x02BC: "'",
    **dict.fromkeys((0xFE0E, 0xFE0F, 0x200B, 0x200C, 0x200D, 0xFEFF, 0x00AD)),  # nothing that is seen
}
_PIECE: Final = re.compile(
    r"(?<![0-9A-Za-z])-?\d+(?:[.,:/]\d+)*"  # a number, a date, a time, with its sign
    r"|[^\W\d_]+(?:'[^\W\d_]+)*"  # a word
    r"|\d+"
    r"|[^\w\s]"
)
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# Punctuation that carries a meaning in an answer ("50%", "C#", "a/b", "a@b"); all other punctuation is left out, as are
# the signs of Markdown.
_KEPT: Final = frozenset("%#&@/\\‰")
_DROPPED: Final = frozenset("`´¨|")


def tokens(text: str) -> list[str]:
    """The text's pieces in order: a word of a script with spaces, lower-case; one character of one without; a number;
    a symbol. Case, spaces, punctuation and Markdown are not in it, nor is the difference between "６３００" and
    "6,300". Traditional and simplified characters are different ones.
    """
    plain = unicodedata.normalize("NFC", text).translate(_SAME).casefold()
    plain = _THOUSANDS.sub("", plain)
    pieces: list[str] = []
    for match in _PIECE.finditer(plain):
        piece = match[0]
        if len(piece) == 1 and not piece.isalnum():
            if piece in _KEPT or (unicodedata.category(piece)[0] == "S" and piece not in _DROPPED):
                pieces.append(piece)
        elif not piece.isascii() and any(map(is_dense, piece)):
            pieces += _split(piece)
        else:
            pieces.append(piece)
    return pieces


def _split(word: str) -> list[str]:
    """A run of letters, some of which are of a script without spaces, as these one by one and the others together."""
    pieces: list[str] = []
    joins = False
    for char in word:
        if is_dense(char):
            pieces.append(char)
            joins = False
        elif joins:
            pieces[-1] += char
        else:
            pieces.append(char)
            joins = True
    return pieces


def said(text: str) -> str:
    """What is answered: the text without thoughts that an engine left in it. Thoughts that were cut off before their
    end leave nothing.
    """
    _, mark, after = text.rpartition("</think>")
    if mark:
        return after.strip()
    return "" if text.lstrip().startswith("<think>") else text.strip()
