"""A report, from a run's facts, its questions and answers, and what the analysis found. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.comparison.analysis.findings import Findings
from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question, plain_text, prompt
from app.comparison.report.contents import ComparisonReport, RunFacts, ShownAnswer, ShownMeasure, ShownQuestion
from app.comparison.report.sentences import headline
from app.comparison.scores.measures import MEASURES
from app.comparison.scores.score import score


def build(
    run: RunFacts, findings: Findings, questions: Sequence[Question], answers: Iterable[ModelAnswer]
) -> ComparisonReport:
    """The report; of questions and answers it has those of the largest changes only."""
    wanted = list(dict.fromkeys(change.question for change in findings.changes))
    known = {question.id: question for question in questions}
    shown = {(each.question, each.model): each for each in answers if each.repeat == 0 and each.question in wanted}
    order = [model.model for model in findings.models]
    return ComparisonReport(
        run=run,
        findings=findings,
        measures=tuple(_measure(name) for name in findings.measures),
        questions=tuple(
            _question(known[name], [shown[name, model] for model in order if (name, model) in shown]) for name in wanted
        ),
        headline=headline(run, findings, {name: MEASURES[name].unit for name in findings.measures}),
    )


def _measure(name: str) -> ShownMeasure:
    measure = MEASURES[name]
    higher = None if measure.better is None else measure.better == "higher"
    return ShownMeasure(name, measure.unit, higher, measure.text, measure.chinese)


def _question(question: Question, answers: Sequence[ModelAnswer]) -> ShownQuestion:
    return ShownQuestion(
        id=question.id,
        category=question.category,
        prompt=_prompt(question),
        reference=question.answer,
        answers=tuple(_answer(question, answer) for answer in answers),
    )


def _prompt(question: Question) -> str:
    """What was asked, as text; with who said it where there is more than the user's one message."""
    messages = prompt(question)
    texts = [(str(message.get("role")), plain_text(message.get("content"))) for message in messages]
    if len(texts) == 1:
        return texts[0][1]
    return "\n\n".join(f"{role}: {text}" for role, text in texts)


def _answer(question: Question, answer: ModelAnswer) -> ShownAnswer:
    return ShownAnswer(
        model=answer.model,
        text=answer.text,
        reasoning=answer.reasoning,
        finish_reason=answer.finish_reason,
        error=answer.error,
        completion_tokens=answer.completion_tokens,
        seconds=answer.seconds,
        scores={name: value for name, value in score(question, answer).items() if value is not None},
    )
