"""What the formats of other programs have in common: one text for each question, lines of JSON, names of files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from app.comparison.question import Question, plain_text


class NotPortable(Exception):
    """This question cannot be said in the other program's format; the message says why."""


def safe_name(name: str) -> str:
    """A name that is one for files, tasks and data sets everywhere: letters, digits and `_`."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower() or "questions"


def one_text(question: Question) -> str:
    """The conversation as one text: what the user asks, behind the system's message and earlier turns, if any. Raises
    NotPortable where there is more in it than text.
    """
    for message in question.messages:
        content = message.get("content")
        if not isinstance(content, str):
            only_texts = isinstance(content, list) and all(part.get("type") == "text" for part in content)
            if not only_texts:
                raise NotPortable("it has an image")
    *before, last = question.messages
    parts = [
        plain_text(message["content"])
        if message["role"] == "system"
        else f"{message['role'].capitalize()}: {plain_text(message['content'])}"
        for message in before
    ]
    asked = plain_text(last["content"])
    earlier = any(message["role"] != "system" for message in before)
    return "\n\n".join([*parts, f"User: {asked}" if earlier else asked])


def lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """JSON lines in UTF-8."""
    return "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records).encode()
