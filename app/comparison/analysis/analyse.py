"""From answers to findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

from app.comparison.analysis.changes import largest_changes
from app.comparison.analysis.contrasts import Rivals, contrast, judged
from app.comparison.analysis.findings import (
    AnswerChange,
    Average,
    Contrast,
    Findings,
    Judging,
    ModelFindings,
    NoiseFloor,
)
from app.comparison.analysis.noise import noise_floor
from app.comparison.analysis.scored import ScoredAnswers
from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question
from app.comparison.scores.measures import MEASURES
from app.statistics.intervals import wilson
from app.statistics.paired import RESAMPLES, paired_interval

_NUANCE = "chrf"  # orders answers that are right or wrong alike
_FEWER = 2_000  # resamples of what is no verdict
_ERROR_TEXTS = 3


def analyse(
    questions: Sequence[Question],
    answers: Iterable[ModelAnswer],
    *,
    models: Sequence[str],
    primary: str,
    seed: int = 0,
    judging: Sequence[Judging] = (),
) -> Findings:
    """What the answers say of the models, each held against the first. `primary`: the one measure whose differences can
    become a verdict without being one of many. `judging`: what a judge said, passed on. The same values and seed give
    the same findings. ValueError for fewer than two models, or a measure that there is not.
    """
    if len(models) < 2 or len(set(models)) < len(models):
        raise ValueError(f"two different models at least are compared, not {', '.join(models) or 'none'}")
    if primary not in MEASURES:
        raise ValueError(f"{primary!r} is no measure (known: {', '.join(MEASURES)})")
    scored = ScoredAnswers(questions, answers, models)
    measures = tuple(dict.fromkeys((primary, *scored.measures())))
    noise = [(model, measure, _noise(scored, model, measure, seed)) for measure in measures for model in models]
    floors = {(model, measure): floor for model, measure, floor in noise if floor is not None}
    further = models[1:]
    overall = [
        _contrast(scored, models[0], model, primary, floors, seed, family=len(further), is_primary=True)
        for model in further
    ]
    hints = [
        _contrast(
            scored, models[0], model, name, floors, seed, family=len(measures[1:]) * len(further), is_primary=False
        )
        for name in measures[1:]
        for model in further
    ]
    return Findings(
        primary=primary,
        measures=measures,
        models=tuple(_model(scored, model, measures, seed) for model in models),
        noise=tuple(floors.values()),
        overall=judged(overall, MEASURES),
        categories=judged(_by_category(scored, models, primary, seed), MEASURES),
        secondary=judged(hints, MEASURES),
        changes=tuple(change for model in further for change in _changes(scored, models[0], model, primary)),
        judging=tuple(judging),
    )


def _noise(scored: ScoredAnswers, model: str, measure: str, seed: int) -> NoiseFloor | None:
    return noise_floor(model, measure, scored.rounds(model, measure), seed=seed)


def _contrast(
    scored: ScoredAnswers,
    against: str,
    model: str,
    measure: str,
    floors: dict[tuple[str, str], NoiseFloor],
    seed: int,
    *,
    family: int,
    is_primary: bool,
) -> Contrast:
    """One measure over all questions."""
    noise = [floors[name, measure] for name in (against, model) if (name, measure) in floors]
    rivals = Rivals(against, model, scored.of(against, measure), scored.of(model, measure), noise)
    resamples = RESAMPLES if is_primary else _FEWER
    return contrast(rivals, MEASURES[measure], is_primary=is_primary, family=family, seed=seed, resamples=resamples)


def _by_category(scored: ScoredAnswers, models: Sequence[str], measure: str, seed: int) -> list[Contrast]:
    """A table of categories, each with each further model; empty where all questions are of one category. Questions
    without a category are of one that has no name.
    """
    ids: dict[str, set[str]] = {}
    for question in scored.questions:
        ids.setdefault(question.category or "", set()).add(question.id)
    if len(ids) < 2:
        return []
    rows = []
    for category in sorted(ids, key=lambda name: (not name, name)):
        within = ids[category]
        for model in models[1:]:
            noise = [
                floor
                for name in (models[0], model)
                if (floor := noise_floor(name, measure, scored.rounds(name, measure), seed=seed, within=within))
            ]
            first, second = (
                {question: value for question, value in scored.of(name, measure).items() if question in within}
                for name in (models[0], model)
            )
            rivals = Rivals(models[0], model, first, second, noise)
            family = len(ids) * (len(models) - 1)
            rows.append(
                contrast(rivals, MEASURES[measure], category=category, is_primary=True, family=family, seed=seed)
            )
    return rows


def _model(scored: ScoredAnswers, model: str, measures: Sequence[str], seed: int) -> ModelFindings:
    asked = [scored.answer(model, question.id) for question in scored.questions]
    errors = [answer.error for answer in asked if answer is not None and answer.error is not None]
    averages = {name: _average(list(scored.of(model, name).values()), name, seed) for name in measures}
    return ModelFindings(
        model=model,
        asked=sum(1 for answer in asked if answer is not None),
        errors=len(errors),
        error_texts=tuple(Counter(errors).most_common(_ERROR_TEXTS)),
        averages={name: average for name, average in averages.items() if average is not None},
    )


def _average(values: list[float], measure: str, seed: int) -> Average | None:
    if not values:
        return None
    if len(values) < 2:
        return Average(values[0], None, None, 1)
    if MEASURES[measure].is_right_or_wrong:
        interval = wilson(sum(values), len(values))
    else:
        interval = paired_interval(values, seed=seed, resamples=_FEWER)
    return Average(fmean(values), interval.low, interval.high, len(values))


def _changes(scored: ScoredAnswers, against: str, model: str, measure: str) -> tuple[AnswerChange, ...]:
    fine, finer = scored.of(against, _NUANCE), scored.of(model, _NUANCE)
    nuances = {question: finer[question] - value for question, value in fine.items() if question in finer}
    rivals = Rivals(against, model, scored.of(against, measure), scored.of(model, measure), ())
    return largest_changes(rivals, measure, nuances)
