"""Intervals at a confidence of 95 %, unless another is asked for.

Neighbouring tokens of a text are not independent of each other: a hard sentence is hard for several tokens. So tokens
are put into blocks of neighbours, and whole blocks are drawn (block bootstrap: Künsch, 1989). For shares near 0 or 1,
where drawing says nothing (all blocks are equal), the interval is Wilson's (1927), with as many independent trials as
the blocks' variance tells (the design effect of survey statistics).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

CONFIDENCE = 0.95
RESAMPLES = 2_000
BLOCK = 32  # tokens


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`, both included, in the unit of the figure that it belongs to."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Block:
    """`count` neighbouring values and their sum."""

    total: float
    count: int


def blocks(runs: Sequence[Sequence[float]], size: int = BLOCK) -> list[Block]:
    """Blocks of up to `size` neighbours; none reaches from one run (a text of its own) into the next."""
    cut = [run[begin : begin + size] for run in runs for begin in range(0, len(run), size)]
    return [Block(math.fsum(part), len(part)) for part in cut]


def mean(sample: Sequence[Block]) -> float:
    """The mean of all values in the blocks. At least one block."""
    return math.fsum(block.total for block in sample) / sum(block.count for block in sample)


def bootstrap(
    sample: Sequence[Block],
    figure: Callable[[float], float] = float,
    *,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Interval:
    """The interval of a monotonous `figure` of the mean (`math.exp` for a perplexity), by drawing blocks. The same seed
    gives the same interval. A single block gives an interval without a width, as nothing can be drawn.
    """
    chance = random.Random(seed)  # noqa: S311 - statistics, not a secret
    means = sorted(mean(chance.choices(sample, k=len(sample))) for _ in range(resamples))
    tail = (1 - confidence) / 2
    ends = (means[math.floor(tail * (resamples - 1))], means[math.ceil((1 - tail) * (resamples - 1))])
    low, high = sorted(figure(end) for end in ends)
    return Interval(low, high)


def wilson(successes: float, trials: float, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share. Without trials it is everything from 0 to 1."""
    if trials <= 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    reach = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(max(0.0, middle - reach), min(1.0, middle + reach))


def design_effect(sample: Sequence[Block]) -> float:
    """How many tokens count as one independent trial, for values 0 and 1: the variance of the blocks' mean divided by
    what independent values would have. At least 1.
    """
    count, share = sum(block.count for block in sample), mean(sample)
    if len(sample) < 2 or not 0 < share < 1:
        return 1.0
    spread = fmean((block.total - share * block.count) ** 2 for block in sample) * len(sample) / (len(sample) - 1)
    return max(1.0, spread * len(sample) / (count * share * (1 - share)))


def share(sample: Sequence[Block], confidence: float = CONFIDENCE) -> Interval:
    """The interval of a share of tokens (values 0 and 1), dependence between neighbours taken into account."""
    trials = sum(block.count for block in sample) / design_effect(sample)
    return wilson(mean(sample) * trials, trials, confidence)
