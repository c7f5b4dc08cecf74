"""The noise floor: how far a model is from itself when it is asked the same again. Pure.

Engines are not deterministic under load, and sampling draws. A difference between two models that is not larger than
what one of them makes against itself is no change.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from statistics import fmean, variance

from app.comparison.analysis.findings import NoiseFloor
from app.statistics.paired import paired_interval

_REACH = 1.96  # standard errors: 95 % of differences of a model from itself are smaller
_RESAMPLES = 2_000


def noise_floor(
    model: str, measure: str, rounds: Sequence[Mapping[str, float]], *, seed: int, within: Container[str] | None = None
) -> NoiseFloor | None:
    """The model against itself, by its scores of each round, over the questions that are `within` (None: all). None
    where fewer than 2 questions were scored twice.

    Each question's variance over its rounds tells how far the means of two rounds over the same questions are apart by
    chance; the floor is what 95 % stay below, and at least what was seen between the first two rounds.
    """
    ids = [question for question in rounds[0] if within is None or question in within] if rounds else []
    seen = {question: [scores[question] for scores in rounds if question in scores] for question in ids}
    twice = {question: values for question, values in seen.items() if len(values) > 1}
    if len(twice) < 2:
        return None
    differences = [values[1] - values[0] for values in twice.values()]
    spread = math.sqrt(2 * fmean(variance(values) for values in twice.values()) / len(ids))
    interval = paired_interval(differences, seed=seed, resamples=_RESAMPLES)
    return NoiseFloor(
        model=model,
        measure=measure,
        questions=len(twice),
        difference=fmean(differences),
        low=interval.low,
        high=interval.high,
        floor=max(_REACH * spread, abs(fmean(differences))),
        changed=sum(1 for values in twice.values() if len(set(values)) > 1),
    )
