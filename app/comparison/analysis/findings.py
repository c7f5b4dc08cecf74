"""What the analysis of a comparison finds: values only, as the report shows them. Pure.

Differences are always "the model minus the first model", in the measure's own unit; `verdict` alone knows which
direction is better. Where a figure cannot be said (nothing to compare), it is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# "changed": outside noise and interval, for a measure that has no better direction (length).
Outcome = Literal["better", "worse", "changed", "no_difference", "too_few"]
# Why the outcome is what it is: "shown"; or what stands against a verdict: its interval includes 0; the p value (of the
# exact test, corrected for all that were tested beside it) is not below 5 %; it is inside the noise floor; fewer than
# MIN_PAIRS questions have both scores.
Ground = Literal["shown", "interval", "p_value", "noise", "too_few"]


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of a measure over `count` answers of one model, with its interval at 95 % (None: fewer than 2)."""

    mean: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """One model against itself, same settings: over `questions` questions the second round's mean minus the first's,
    its interval, and `floor`: a difference up to so much is what the model differs from itself.
    """

    model: str
    measure: str
    questions: int
    difference: float
    low: float
    high: float
    floor: float
    changed: int  # questions whose score was not the same both times


@dataclass(frozen=True, slots=True)
class Contrast:
    """One model against the first one: one measure, over the questions (of one category, or None: of all) where both
    have a score. The category of questions that have none is "".
    """

    model: str
    against: str
    measure: str
    category: str | None
    questions: int  # pairs that count
    first_mean: float | None
    mean: float | None
    difference: float | None
    low: float | None  # interval of the paired difference, 95 %
    high: float | None
    test: Literal["mcnemar", "sign_flip"] | None
    p: float | None
    p_adjusted: float | None  # Holm, over all contrasts of the same table
    wins: int  # questions where the model is better (without a better direction: higher)
    ties: int
    losses: int
    detectable: float | None  # the smallest difference that so many questions show in 80 % of runs, beside the others
    noise_floor: float | None  # the larger of the two models' floors; None: not measured
    outcome: Outcome
    ground: Ground
    is_primary: bool


@dataclass(frozen=True, slots=True)
class ModelFindings:
    """One model: `asked` questions, of which `errors` ended in an error (these have no scores), the most frequent error
    texts with their counts, and the mean of each measure.
    """

    model: str
    asked: int
    errors: int
    error_texts: tuple[tuple[str, int], ...]
    averages: dict[str, Average]


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """A question on which the model's score is far from the first model's; `question` is its id."""

    question: str
    model: str
    against: str
    measure: str
    first_score: float
    score: float


@dataclass(frozen=True, slots=True)
class Judging:
    """What a judge model said of one model against the first, each pair of answers shown in both orders.

    `agreement`: the share of pairs where it said the same in both orders, with its interval; `first_share`: how often
    the answer that was shown first won, of all judgements with a winner (0.5: order does not matter). Where
    `is_useful` is False its wins are no result. A pair on which it contradicts itself is a tie. `win_share`: wins plus
    half the ties, of all pairs, with its interval.
    """

    judge: str
    model: str
    against: str
    pairs: int
    errors: int  # pairs without two readable judgements
    agreement: float
    agreement_low: float
    agreement_high: float
    first_share: float | None
    is_useful: bool
    wins: int
    ties: int
    losses: int
    win_share: float
    low: float
    high: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Findings:
    """All that the analysis found. Contrasts of the primary measure come first in each list; `models` is in the order
    asked for, the first is what the others are held against.
    """

    primary: str
    measures: tuple[str, ...]
    models: tuple[ModelFindings, ...]
    noise: tuple[NoiseFloor, ...]
    overall: tuple[Contrast, ...]  # the primary measure over all questions, one for each further model
    categories: tuple[Contrast, ...]  # the primary measure by category; empty where there is one category or none
    secondary: tuple[Contrast, ...]  # all other measures over all questions: hints
    changes: tuple[AnswerChange, ...]  # up to ten for each further model, largest first
    judging: tuple[Judging, ...]
