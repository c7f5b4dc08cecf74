"""A file of questions, whoever wrote it: the format is told by the content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from app.comparison.formats.containers import ContainerProblem, records
from app.comparison.formats.easy_dataset import easy_dataset
from app.comparison.formats.evalscope import general_mcq, general_qa
from app.comparison.formats.own import own
from app.comparison.formats.record import Record, RecordProblem
from app.comparison.formats.training import alpaca, conversation
from app.comparison.question import Question

_LOOKED_AT: Final = 50  # records, to tell the format
_NAMED: Final = 8  # members of a record that is in no format


class QuestionFileError(Exception):
    """The file cannot be used; the message is one sentence with the place and what to do."""


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """What a file holds: its questions in the file's order, each with an id of its own. `format`: the name in
    FORMATS that it was read as. `skipped` records could not be used, the first one for the reason in `first_skipped`;
    questions that were there already are among them, as they would count twice. `digest`: "sha256:" and the hex digest
    of the file's bytes.
    """

    name: str
    format: str
    questions: tuple[Question, ...]
    digest: str
    skipped: int = 0
    first_skipped: str = ""


@dataclass(frozen=True, slots=True)
class QuestionFormat:
    """One format: whether a record looks like it, and the record as a question (RecordProblem where it is not one).
    `text`: what it is, in a few words.
    """

    text: str
    is_like: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], str], Question]


# In the order in which they are tried: what is told by more peculiar members comes first.
FORMATS: Final[Mapping[str, QuestionFormat]] = MappingProxyType(
    {
        "easy-dataset": QuestionFormat(
            "Easy Dataset's evaluation export (question, correctAnswer)",
            lambda record: "question" in record and ("correctAnswer" in record or "questionType" in record),
            easy_dataset,
        ),
        "general_mcq": QuestionFormat(
            "EvalScope's choices (question, A, B, …, answer)",
            lambda record: {"question", "A", "B"} <= record.keys(),
            general_mcq,
        ),
        "general_qa": QuestionFormat(
            "EvalScope's questions (query or messages, response)",
            lambda record: "query" in record or {"messages", "response"} <= record.keys(),
            general_qa,
        ),
        "alpaca": QuestionFormat("Alpaca (instruction, input, output)", lambda record: "instruction" in record, alpaca),
        "sharegpt": QuestionFormat(
            "ShareGPT (conversations)",
            lambda record: "conversations" in record or "conversation" in record,
            conversation,
        ),
        "questions": QuestionFormat(
            "Modelport's own (question or messages, answer, options, form, category)",
            lambda record: (
                "question" in record
                or "prompt" in record
                or ("messages" in record and bool({"answer", "form", "options"} & record.keys()))
            ),
            own,
        ),
        "messages": QuestionFormat(
            "OpenAI's conversations (messages)", lambda record: "messages" in record, conversation
        ),
    }
)


def read_questions(path: Path, *, format: str | None = None) -> QuestionFile:
    """The questions in a file; `format`: one of FORMATS, None to tell it by the content. Raises QuestionFileError.
    Blocks.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise QuestionFileError(f"'{path}' cannot be read: {exc.strerror or exc}") from exc
    return parse_questions(path.name, data, format=format)


def parse_questions(name: str, data: bytes, *, format: str | None = None) -> QuestionFile:
    """The questions in a file's bytes. Raises QuestionFileError."""
    if format is not None and format not in FORMATS:
        raise QuestionFileError(f"format '{format}' is not known (known: {', '.join(FORMATS)})")
    try:
        all_records = records(name, data)
    except ContainerProblem as exc:
        raise QuestionFileError(f"'{name}' {exc}") from exc
    chosen = format or _told(name, all_records)
    questions, skipped = _questions(all_records, FORMATS[chosen])
    if not questions:
        why = f": {skipped[0]}" if skipped else ""
        raise QuestionFileError(f"'{name}' has no question that can be asked, read as {FORMATS[chosen].text}{why}")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return QuestionFile(name, chosen, tuple(questions), digest, len(skipped), skipped[0] if skipped else "")


def _told(name: str, all_records: Sequence[Record]) -> str:
    """The format that most of the first records look like."""
    seen = [record for record in all_records if record.fault is None][:_LOOKED_AT]
    likes = {key: sum(map(form.is_like, (record.members for record in seen))) for key, form in FORMATS.items()}
    best = max(likes, key=lambda key: likes[key])
    if likes[best]:
        return best
    known = "; ".join(form.text for form in FORMATS.values())
    if not seen:
        first = all_records[0] if all_records else None
        raise QuestionFileError(
            f"'{name}' has no records" if first is None else f"'{name}': {first.place}: {first.fault}"
        )
    members = ", ".join(list(seen[0].members)[:_NAMED])
    raise QuestionFileError(f"'{name}' is in no format known here: {seen[0].place} has {members}; known are {known}")


def _questions(all_records: Sequence[Record], form: QuestionFormat) -> tuple[list[Question], list[str]]:
    """The questions, and why each of the other records is not one."""
    questions, skipped = [], []
    places: dict[str, str] = {}
    names = _names(all_records)
    for record in all_records:
        name = next(names)
        try:
            if record.fault is not None:
                raise RecordProblem(record.fault)
            question = form.read(record.members, name)
            content = _content(question)
            if content in places:
                raise RecordProblem(f"it is the same as {places[content]}")
        except RecordProblem as exc:
            skipped.append(f"{record.place}: {exc}")
            continue
        places[content] = record.place
        questions.append(question)
    return questions, skipped


def _names(all_records: Sequence[Record]) -> Iterator[str]:
    """An id for each record: its own where that is a text or a number nobody had before, else its number."""
    seen: set[str] = set()
    for number, record in enumerate(all_records, 1):
        own_id = record.members.get("id")
        name = f"{own_id}".strip() if isinstance(own_id, str | int) and not isinstance(own_id, bool) else ""
        name = name or f"{number}"
        while name in seen:
            name = f"{name}#{number}"
        seen.add(name)
        yield name


def _content(question: Question) -> str:
    """Everything of a question but its id. Raises RecordProblem where it cannot be sent."""
    text = json.dumps(
        [question.messages, question.answer, question.options, question.form], ensure_ascii=False, sort_keys=True
    )
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise RecordProblem("it has half of a character in it (a lone surrogate)") from exc
    return text
