"""One model against the first: the paired difference with its interval and test, and whether it is a verdict. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from app.comparison.analysis.findings import Contrast, Ground, NoiseFloor, Outcome
from app.comparison.scores.measures import Measure
from app.statistics.families import holm
from app.statistics.paired import RESAMPLES, mcnemar, paired_interval, sign_flip
from app.statistics.power import ALPHA, detectable_mean, detectable_share

MIN_PAIRS = 6  # with fewer, no result of an exact test is below 5 %


@dataclass(frozen=True, slots=True)
class Rivals:
    """Two models' scores in one measure, by question, and how far each is from itself (those that were measured)."""

    against: str
    model: str
    first: Mapping[str, float]
    second: Mapping[str, float]
    noise: Sequence[NoiseFloor]


def contrast(
    rivals: Rivals,
    measure: Measure,
    *,
    category: str | None = None,
    is_primary: bool = False,
    family: int = 1,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Contrast:
    """The contrast without its verdict: the p value is not yet corrected for the others, see `judged`. `family`: how
    many are tested in its table, which makes what can be shown larger.
    """
    pairs = [(value, rivals.second[question]) for question, value in rivals.first.items() if question in rivals.second]
    differences = [second - first for first, second in pairs]
    higher, lower = sum(1 for each in differences if each > 0), sum(1 for each in differences if each < 0)
    wins, losses = (lower, higher) if measure.better == "lower" else (higher, lower)
    plain = Contrast(
        model=rivals.model,
        against=rivals.against,
        measure=measure.name,
        category=category,
        questions=len(pairs),
        first_mean=fmean(first for first, _ in pairs) if pairs else None,
        mean=fmean(second for _, second in pairs) if pairs else None,
        difference=fmean(differences) if pairs else None,
        low=None,
        high=None,
        test=None,
        p=None,
        p_adjusted=None,
        wins=wins,
        ties=len(pairs) - wins - losses,
        losses=losses,
        detectable=None,
        noise_floor=max((floor.floor for floor in rivals.noise), default=None),
        outcome="too_few",
        ground="too_few",
        is_primary=is_primary,
    )
    if len(pairs) < MIN_PAIRS:
        return plain
    interval = paired_interval(differences, seed=seed, resamples=resamples)
    exact, alpha = measure.is_right_or_wrong, ALPHA / family
    p = mcnemar(higher, lower) if exact else sign_flip(differences, seed=seed, resamples=resamples)
    detectable = detectable_share(differences, alpha) if exact else detectable_mean(differences, alpha)
    return replace(
        plain,
        low=interval.low,
        high=interval.high,
        test="mcnemar" if exact else "sign_flip",
        p=p,
        # What is inside the noise floor is not shown by any number of disagreements.
        detectable=None if detectable is None else max(detectable, plain.noise_floor or 0.0),
    )


def judged(contrasts: Sequence[Contrast], measures: Mapping[str, Measure]) -> tuple[Contrast, ...]:
    """The contrasts of one table with their verdicts; p values are corrected for all that were tested in it (Holm)."""
    adjusted = iter(holm([each.p for each in contrasts if each.p is not None]))
    return tuple(
        each if each.p is None else _with_verdict(replace(each, p_adjusted=next(adjusted)), measures[each.measure])
        for each in contrasts
    )


def _with_verdict(each: Contrast, measure: Measure) -> Contrast:
    ground = _ground(each)
    if ground != "shown":
        return replace(each, outcome="no_difference", ground=ground)
    outcome: Outcome = "changed"
    if measure.better is not None and each.difference is not None:
        outcome = "better" if (each.difference > 0) == (measure.better == "higher") else "worse"
    return replace(each, outcome=outcome, ground=ground)


def _ground(each: Contrast) -> Ground:
    """What stands against a verdict, the first that does."""
    if each.difference is None or each.low is None or each.high is None or each.low <= 0 <= each.high:
        return "interval"
    if each.p_adjusted is None or each.p_adjusted >= ALPHA:
        return "p_value"
    if each.noise_floor is not None and abs(each.difference) <= each.noise_floor:
        return "noise"
    return "shown"
