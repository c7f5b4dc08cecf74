"""Our own format, which is also the plainest: a `question` (or `messages`), and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.comparison.closed_answers import truth
from app.comparison.formats.record import RecordProblem, category_of, checked_letters, checked_options, text_of
from app.comparison.formats.training import conversation
from app.comparison.question import Form, Question

FORMS: tuple[Form, ...] = ("open", "choice", "true_false")


def own(members: Mapping[str, Any], name: str) -> Question:
    """`question` with a `system`, or `messages`; `answer`; `options` (or `choices`); `form`; `category`. Where no form
    is named, options make it a choice, and true or false as JSON's values make it a true_false. Raises RecordProblem.
    """
    messages, reference = _asked(members, name)
    given = (members.get(each) for each in ("answer", "reference", "response", "completion", "output"))
    answer = next((each for each in given if each not in (None, "")), reference)
    options = members.get("options") or members.get("choices")
    form = members.get("form") or ("choice" if options else "true_false" if isinstance(answer, bool) else "open")
    category = category_of(members)
    if form not in FORMS:
        raise RecordProblem(f"its form {form!r} is not one of {', '.join(FORMS)}")
    if form == "choice":
        if not isinstance(options, list):
            raise RecordProblem("it is a choice, and its options are not a list")
        texts = checked_options(options)
        return Question(name, messages, checked_letters(answer, texts), texts, "choice", category)
    if form == "true_false":
        verdict = answer if isinstance(answer, bool | None) else truth(f"{answer}")
        if answer is not None and verdict is None:
            raise RecordProblem(f"its answer {answer!r} is neither true nor false")
        return Question(name, messages, None if verdict is None else f"{verdict}".lower(), (), "true_false", category)
    if isinstance(answer, list | dict | bool):
        raise RecordProblem(f"its answer {answer!r} is not a text")
    return Question(name, messages, f"{answer}".strip() if answer is not None else None, (), "open", category)


def _asked(members: Mapping[str, Any], name: str) -> tuple[tuple[Mapping[str, Any], ...], str | None]:
    if members.get("messages"):
        question = conversation({"messages": members["messages"], "system": members.get("system")}, name)
        return question.messages, question.answer
    asked = text_of(members, "question", "prompt", "text")
    if asked is None:
        raise RecordProblem("it has no question")
    system = text_of(members, "system")
    head = ({"role": "system", "content": system},) if system else ()
    return (*head, {"role": "user", "content": asked}), None
