"""Characters that no page can hold. Pure."""

from __future__ import annotations

import re

# Controls that a text has no use for, halves of surrogate pairs, and code points that are no characters.
_UNSOUND = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def sound(text: str) -> str:
    """The text with every character that a page cannot hold shown as U+FFFD; line ends as they are here."""
    return _UNSOUND.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
