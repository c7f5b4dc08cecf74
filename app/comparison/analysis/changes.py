"""The questions on which two models are furthest apart. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from app.comparison.analysis.contrasts import Rivals
from app.comparison.analysis.findings import AnswerChange

CHANGES = 10


def largest_changes(
    rivals: Rivals, measure: str, nuances: Mapping[str, float], limit: int = CHANGES
) -> tuple[AnswerChange, ...]:
    """Up to `limit` questions whose scores differ, the largest difference first. Where many are equally large, as of
    right and wrong, gains and losses take turns, and among these the larger `nuances` (by question, a finer measure's
    difference) come first.
    """
    both = [question for question in rivals.first if question in rivals.second]
    differences = {question: rivals.second[question] - rivals.first[question] for question in both}
    apart = [question for question in both if differences[question]]
    apart.sort(key=lambda question: (-abs(differences[question]), -abs(nuances.get(question, 0.0))))
    turns: Counter[float] = Counter()
    order: dict[str, tuple[float, int]] = {}
    for question in apart:
        turns[differences[question]] += 1
        order[question] = (-abs(differences[question]), turns[differences[question]])
    return tuple(
        AnswerChange(question, rivals.model, rivals.against, measure, rivals.first[question], rivals.second[question])
        for question in sorted(apart, key=order.__getitem__)[:limit]
    )
