"""All answers' scores, each found by its model, repeat, question and measure. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question
from app.comparison.scores.measures import MEASURES
from app.comparison.scores.score import score


class ScoredAnswers:
    """The answers to the questions, scored once. Of two answers with the same question, model and repeat the later one
    counts; answers to other questions, or of other models, are left out.
    """

    def __init__(self, questions: Sequence[Question], answers: Iterable[ModelAnswer], models: Sequence[str]) -> None:
        self.questions = tuple(questions)
        asked = {question.id: question for question in questions}
        self._answers = {
            (answer.model, answer.repeat, answer.question): answer
            for answer in answers
            if answer.question in asked and answer.model in models
        }
        self._scores = {key: score(asked[key[2]], answer) for key, answer in self._answers.items()}
        repeats: dict[str, set[int]] = {model: set() for model in models}
        for model, repeat, _ in self._answers:
            repeats[model].add(repeat)
        self._repeats = {model: sorted(numbers) for model, numbers in repeats.items()}

    def answer(self, model: str, question: str, repeat: int = 0) -> ModelAnswer | None:
        """The answer, or None where there is none (yet)."""
        return self._answers.get((model, repeat, question))

    def of(self, model: str, measure: str, repeat: int = 0) -> dict[str, float]:
        """The scores by the questions' ids, in the questions' order; what has no score is left out."""
        keyed = ((question.id, self._scores.get((model, repeat, question.id), {})) for question in self.questions)
        values = ((question, scores.get(measure)) for question, scores in keyed)
        return {question: value for question, value in values if value is not None}

    def rounds(self, model: str, measure: str) -> list[Mapping[str, float]]:
        """The scores of every time that the model was asked, the answers that count first."""
        return [self.of(model, measure, repeat) for repeat in self._repeats[model]]

    def measures(self) -> tuple[str, ...]:
        """The measures that at least one of the answers that count has a score in."""
        seen = {
            name
            for key, scores in self._scores.items()
            if key[1] == 0
            for name, value in scores.items()
            if value is not None
        }
        return tuple(name for name in MEASURES if name in seen)
