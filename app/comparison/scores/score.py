"""The scores of one answer."""

from __future__ import annotations

from collections.abc import Mapping

from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question
from app.comparison.scores.measures import MEASURES


def score(question: Question, answer: ModelAnswer) -> Mapping[str, float | None]:
    """The answer's figure in every measure; None where the measure says nothing of it: there is no reference answer,
    the question is of another form, or the engine did not tell. An error has no scores at all: every figure is None.
    """
    scores: dict[str, float | None] = dict.fromkeys(MEASURES)
    if answer.error is not None:
        return scores
    scores["length"] = float(len(answer.text.strip()))
    scores["seconds"] = answer.seconds
    if question.answer is not None and question.form == "open":
        scores["exact"] = float(answer.text.strip() == question.answer.strip())
        scores["contains"] = float(question.answer.strip() in answer.text)
    if answer.reference_logprob is not None and answer.reference_tokens:
        scores["logprob"] = answer.reference_logprob / answer.reference_tokens
    return scores
