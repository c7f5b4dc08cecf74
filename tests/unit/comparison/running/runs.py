"""Orders, records and questions as runs have them."""

from __future__ import annotations

from app.comparison.question import Question
from app.comparison.running.asks import questions_digest
from app.comparison.running.run_record import RunOrder, RunRecord


def questions(count: int, *categories: str) -> list[Question]:
    """So many questions, in turn of these categories."""
    return [
        Question(
            f"q{at}",
            ({"role": "user", "content": f"What is {at} + 1?"},),
            str(at + 1),
            category=categories[at % len(categories)] if categories else None,
        )
        for at in range(count)
    ]


def order(asked: list[Question], *models: str, repeats: int = 0) -> RunOrder:
    """An order of these questions."""
    return RunOrder(
        models=models or ("base", "tuned"),
        file="questions.jsonl",
        digest=questions_digest(asked),
        count=len(asked),
        primary="contains",
        repeats=repeats,
    )


def record(of: RunOrder, id: str = "run") -> RunRecord:
    """The record of a run that has just begun."""
    return RunRecord(id=id, created=1_795_786_800, models=of.models, questions=of.count, order=of)
