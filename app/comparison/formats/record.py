"""One record of a file, and why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.comparison.closed_answers import bare_options, leading_letter, only_letters
from app.comparison.question import LETTERS


class RecordProblem(Exception):
    """This record is no question; the message says why, as what follows the record's place in a sentence."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was read. `place`: "line 3". `fault`: why it could not even be read; then it has no members."""

    place: str
    members: Mapping[str, Any]
    fault: str | None = None


def text_of(record: Mapping[str, Any], *names: str) -> str | None:
    """The first of these members that is a text with something in it, without spaces around. Numbers are texts."""
    for name in names:
        value = record.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = f"{value}"
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def category_of(record: Mapping[str, Any], *names: str) -> str | None:
    """The record's field. Of several tags, in a list or with commas between them, the first."""
    for name in (*names, "category", "subject", "topic", "tags"):
        value = record.get(name)
        if isinstance(value, list):
            value = next((each for each in value if isinstance(each, str) and each.strip()), None)
        if isinstance(value, str) and value.strip():
            return value.replace("，", ",").split(",")[0].strip() if name == "tags" else value.strip()
    return None


def without_thinking(text: str) -> str:
    """A reference answer without the thoughts that training data puts before it."""
    head, mark, tail = text.rpartition("</think>")
    return tail.strip() if mark and "<think>" in head else text.strip()


def checked_options(options: list[Any] | tuple[Any, ...]) -> tuple[str, ...]:
    """The options as texts without letters. Raises RecordProblem."""
    texts = [f"{each}".strip() for each in options if isinstance(each, str | int | float) and f"{each}".strip()]
    if len(texts) != len(options):
        raise RecordProblem("one of its options is empty or not a text")
    if not 2 <= len(texts) <= len(LETTERS):
        raise RecordProblem(f"it has too few or too many options ({len(texts)}): 2 to {len(LETTERS)} have letters")
    return bare_options(texts)


def checked_letters(answer: Any, options: tuple[str, ...]) -> str | None:
    """The letters of the right options: from letters in whatever shape, or from the option's own text. None where there
    is no answer. Raises RecordProblem.
    """
    if answer is None or answer in ("", []):
        return None
    named = answer if isinstance(answer, list) else [answer]
    if not all(isinstance(each, str) for each in named):
        raise RecordProblem(f"its answer {answer!r} is not a letter: options are named by A, B, …")
    letters = only_letters(",".join(named), len(options))
    if letters is None:
        places = [_place(each, options) for each in named]
        if None in places:
            last = LETTERS[len(options) - 1]
            raise RecordProblem(f"its answer {answer!r} is neither a letter from A to {last} nor one of its options")
        letters = "".join(sorted({LETTERS[place] for place in places if place is not None}))
    return letters


def _place(answer: str, options: tuple[str, ...]) -> int | None:
    """Which option an answer is the text of, with or without its letter."""
    plain = answer.strip()
    if plain in options:
        return options.index(plain)
    letter = leading_letter(plain)
    at = LETTERS.index(letter) if letter else len(options)
    return at if at < len(options) and plain.endswith(options[at]) else None
