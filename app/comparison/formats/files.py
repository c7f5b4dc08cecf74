"""A file of questions, whoever wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.comparison.question import Question


class QuestionFileError(Exception):
    """The file cannot be used; the message is one sentence with the place and what to do."""


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """What a file holds: its questions in the file's order, each with an id of its own. `format`: the name in
    FORMATS that it was read as. `skipped` records could not be used, the first one for the reason in `first_skipped`.
    `digest`: "sha256:" and the hex digest of the file's bytes.
    """

    name: str
    format: str
    questions: tuple[Question, ...]
    digest: str
    skipped: int = 0
    first_skipped: str = ""


def read_questions(path: Path, *, format: str | None = None) -> QuestionFile:
    """The questions in a file; `format`: one of FORMATS, None to tell it by the content. Raises QuestionFileError.
    Blocks.
    """
    raise QuestionFileError(f"'{path}' cannot be read as {format or 'any known format'}")
