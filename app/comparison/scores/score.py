"""The scores of one answer."""

from __future__ import annotations

from collections.abc import Mapping

from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question
from app.comparison.scores.closed import chosen, judged
from app.comparison.scores.measures import MEASURES
from app.comparison.scores.overlap import chrf, contains, is_same, repetition, rouge_l
from app.comparison.scores.refusals import is_refusal
from app.comparison.scores.tokens import said


def score(question: Question, answer: ModelAnswer) -> Mapping[str, float | None]:
    """The answer's figure in every measure; None where the measure says nothing of it: there is no reference answer,
    the question is of another form, or the engine did not tell. An error has no scores at all: every figure is None.
    A closed question that was answered beside the point is wrong, an empty answer is the worst one.
    """
    scores: dict[str, float | None] = dict.fromkeys(MEASURES)
    if answer.error is not None:
        return scores
    text = said(answer.text)
    scores["length"] = float(len(text))
    scores["seconds"] = answer.seconds
    scores["refusal"] = float(is_refusal(text, answer.finish_reason))
    scores["repetition"] = repetition(text)
    if answer.reference_logprob is not None and answer.reference_tokens:
        scores["logprob"] = answer.reference_logprob / answer.reference_tokens
    reference = question.answer
    if reference is None:
        return scores
    if question.form == "open":
        scores["exact"] = float(is_same(text, reference))
        scores["contains"] = float(contains(text, reference))
        scores["chrf"] = chrf(text, reference)
        scores["rouge_l"] = rouge_l(text, reference)
    elif question.form == "choice":
        is_cut = answer.finish_reason == "length"
        letters = chosen(text, question.options, several=len(reference) > 1, is_cut=is_cut)
        scores["choice"] = float(letters == reference)
    else:
        verdict = judged(text)
        scores["choice"] = float(verdict is not None and verdict == (reference == "true"))
    return scores
