"""The answers of closed questions as data sets and models write them: letters, and true or false. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

from app.comparison.question import LETTERS

# What counts as true and as false when it is all that is said. The signs are Easy Dataset's and those of Chinese tests.
_TRUE: Final = frozenset(
    {
        *("true", "t", "yes", "y", "right", "correct", "1"),
        *("✅", "✓", "✔", "√", "☑", "正确", "对", "是", "真"),
    }
)
_FALSE: Final = frozenset(
    {
        *("false", "f", "no", "n", "wrong", "incorrect", "0"),
        *("❌", "✗", "✘", "×", "☒", "✖", "错误", "错", "否", "假", "不正确", "不对"),
    }
)
_VARIATION: Final = "\ufe0e\ufe0f"  # says whether a sign is drawn as text or as a picture
_AROUND: Final = " \t\r\n.,;:!?\"'`*_()[]{}<>。，；：！？“”‘’「」『』【】（）《》"


def truth(text: str) -> bool | None:
    """Whether a text says nothing but "true" or nothing but "false", in whatever words; None where it says more."""
    word = text.translate(dict.fromkeys(map(ord, _VARIATION))).strip(_AROUND).casefold()
    if word in _TRUE:
        return True
    return False if word in _FALSE else None


def only_letters(text: str, count: int) -> str | None:
    """The letters that a text consists of, in the alphabet's order, each once: "B", "(b).", "A, C", "AC", '["A","C"]';
    None where it says anything else or names an option beyond the first `count`.
    """
    bare = text.strip()
    if bare.startswith("["):
        try:
            listed = json.loads(bare)
        except (ValueError, RecursionError):
            listed = None
        if isinstance(listed, list) and all(isinstance(each, str) for each in listed):
            bare = ",".join(listed)
    bare = re.sub(r"(?i)\s+(?:and|or)\s+|[和与及]", ",", bare.strip(_AROUND))
    parts = [part.strip(_AROUND) for part in re.split(r"[\s,，、;；&/+|]+", bare)]
    parts = [part for part in parts if part]
    if len(parts) == 1 and parts[0].isupper():
        parts = list(parts[0])
    if not parts or any(len(part) != 1 for part in parts):
        return None
    letters = "".join(sorted({part.upper() for part in parts}))
    return letters if all(letter in LETTERS[:count] for letter in letters) else None


def leading_letter(text: str) -> str | None:
    """The letter that a text begins with where it is set off as the letter of an option: "B. Danube", "(B) Danube",
    "B：长江". An article or a name is none ("A river", "B-tree").
    """
    match = re.match(r"\s*[*_`]*[（(\[【]?\s*([A-Z])\s*(?:[)）\]】]|[.．、:：](?![A-Za-z]\.))[*_`]*\s*", text)
    return match[1] if match else None


def bare_options(options: Sequence[str]) -> tuple[str, ...]:
    """The options without their letters, where each has its own ("A. Ulm", "B. Danube")."""
    if options and all(leading_letter(text) == letter for text, letter in zip(options, LETTERS, strict=False)):
        return tuple(re.sub(r"^[^A-Z]*[A-Z]\s*[)）\]】.．、:：]+[*_`]*\s*", "", text, count=1) for text in options)
    return tuple(options)
