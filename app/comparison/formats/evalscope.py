"""EvalScope's own data sets as questions: `general_qa` and `general_mcq`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.comparison.formats.record import RecordProblem, category_of, checked_letters, checked_options, text_of
from app.comparison.formats.training import conversation
from app.comparison.question import LETTERS, Question

MOST_OPTIONS: Final = 10  # the columns from A to J


def general_qa(members: Mapping[str, Any], name: str) -> Question:
    """`query` with a `system`, or `messages`; and `response`. Raises RecordProblem."""
    reference = text_of(members, "response", "answer")
    if members.get("messages"):
        asked = conversation({"messages": members["messages"]}, name)
        return Question(name, asked.messages, reference or asked.answer, category=category_of(members))
    query = text_of(members, "query", "question")
    if query is None:
        raise RecordProblem("its query is empty")
    system = text_of(members, "system")
    head = ({"role": "system", "content": system},) if system else ()
    return Question(name, (*head, {"role": "user", "content": query}), reference, category=category_of(members))


def general_mcq(members: Mapping[str, Any], name: str) -> Question:
    """`question`, options in `A` to `J`, and `answer`: a letter or a list of letters. Raises RecordProblem."""
    asked = text_of(members, "question")
    if asked is None:
        raise RecordProblem("its question is empty")
    named = [letter for letter in LETTERS[:MOST_OPTIONS] if members.get(letter) not in (None, "")]
    if named != list(LETTERS[: len(named)]):
        raise RecordProblem(f"it has an option {named[-1]}, but not all before it")
    options = checked_options([members[letter] for letter in named])
    answer = checked_letters(members.get("answer"), options)
    return Question(
        name, ({"role": "user", "content": asked},), answer, options, "choice", category=category_of(members)
    )
