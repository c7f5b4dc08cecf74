"""Easy Dataset's export of its evaluation sets as questions.

Its quirks: `options`, and the `correctAnswer` of a multiple choice, are JSON within a text; `tags` have commas between
them; true and false are "✅" and "❌"; the type is missing where a file is one that is to be imported there; its CSV
begins with a byte order mark and quotes only where there is a comma, a quotation mark or a line feed.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from app.comparison.closed_answers import truth
from app.comparison.formats.record import RecordProblem, category_of, checked_letters, checked_options, text_of
from app.comparison.question import Question

_TYPES: Final = ("true_false", "single_choice", "multiple_choice", "short_answer", "open_ended")


def easy_dataset(members: Mapping[str, Any], name: str) -> Question:
    """`questionType`, `question`, `options`, `correctAnswer`, `tags`. Raises RecordProblem."""
    asked = text_of(members, "question")
    if asked is None:
        raise RecordProblem("its question is empty")
    messages = ({"role": "user", "content": asked},)
    category = category_of(members)
    answer = members.get("correctAnswer")
    match _type(members):
        case "true_false":
            verdict = answer if isinstance(answer, bool) else truth(answer) if isinstance(answer, str) else None
            if answer not in (None, "") and verdict is None:
                raise RecordProblem(f"its correctAnswer {answer!r} is neither ✅ nor ❌")
            said = None if verdict is None else f"{verdict}".lower()
            return Question(name, messages, said, form="true_false", category=category)
        case "single_choice" | "multiple_choice":
            options = checked_options(_unpacked(members.get("options")))
            return Question(
                name, messages, checked_letters(_answers(answer), options), options, "choice", category=category
            )
        case _:
            return Question(name, messages, text_of(members, "correctAnswer"), category=category)


def _type(members: Mapping[str, Any]) -> str:
    named = members.get("questionType")
    if named in _TYPES:
        return f"{named}"
    if named not in (None, ""):
        raise RecordProblem(f"its questionType {named!r} is not one of {', '.join(_TYPES)}")
    if members.get("options") not in (None, "", [], "[]"):
        return "single_choice"
    answer = members.get("correctAnswer")
    return "true_false" if isinstance(answer, str) and answer.strip("\ufe0f ") in ("✅", "❌") else "open_ended"


def _unpacked(value: Any) -> list[Any]:
    """A list that may be JSON within a text, a list as Python writes it, or a text with separators."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str) or not value.strip():
        raise RecordProblem("it has no options")
    for read in (json.loads, ast.literal_eval):
        try:
            unpacked = read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(unpacked, list):
            return unpacked
    if value.lstrip().startswith("["):
        raise RecordProblem("its options are not JSON")
    return [part.strip() for part in re.split(r"[,;|，；\n]", value) if part.strip()]


def _answers(value: Any) -> Any:
    """Letters, out of JSON where they are within a text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise RecordProblem("its correctAnswer is not JSON") from exc
    return value
