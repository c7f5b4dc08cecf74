"""What so many questions can show: the power of the tests of paired differences, and the smallest difference that they
find in 80 % of runs. Pure.

"No difference seen" says little without it: 20 questions do not see 15 points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist, stdev

import numpy as np
from numpy.typing import NDArray

from app.statistics.paired import student_quantile

ALPHA = 0.05
POWER = 0.8


def mcnemar_power(questions: int, difference: float, discordant: float, alpha: float = ALPHA) -> float:
    """How likely McNemar's exact test finds a `difference` of two shares of right answers (0.15: 15 points), where a
    share `discordant` of questions is right for only one of the models (at least the difference). Only runs that find
    it in the true direction count.
    """
    if not 0 <= difference <= discordant <= 1:
        raise ValueError(f"a difference of {difference} is not between 0 and the discordant share, {discordant}")
    if discordant == 0:
        return 0.0
    towards = (1 + difference / discordant) / 2
    likely = _binomial(questions, discordant)
    counts = np.flatnonzero(likely > 1e-9)
    reached = (likely[count] * _binomial(int(count), towards)[_critical(int(count), alpha) :].sum() for count in counts)
    return min(1.0, float(sum(reached)))


def detectable_share(differences: Sequence[float], alpha: float = ALPHA, power: float = POWER) -> float | None:
    """The smallest difference of two shares of right answers that McNemar's test finds in 80 % of runs, with as many
    questions and as many disagreements as here (`differences`: -1, 0, 1). None: not even a difference of 1 would be.
    """
    count = len(differences)
    discordant = sum(1 for value in differences if value) / count if count else 0.0

    def is_seen(difference: float) -> bool:
        return mcnemar_power(count, difference, max(discordant, difference), alpha) >= power

    return _smallest(is_seen) if is_seen(1.0) else None


def detectable_mean(differences: Sequence[float], alpha: float = ALPHA, power: float = POWER) -> float | None:
    """The smallest mean difference that so many values of such a spread show in 80 % of runs, in their unit. None where
    fewer than 2 are there or none differs, so that nothing is known of the spread.
    """
    count = len(differences)
    spread = stdev(differences) if count > 1 else 0.0
    if spread == 0.0:
        return None
    reach = student_quantile(1 - alpha / 2, count - 1) + NormalDist().inv_cdf(power)
    return reach * spread / math.sqrt(count)


def _smallest(is_seen: Callable[[float], bool]) -> float:
    """Where `is_seen` turns true between 0 and 1, to a thousandth."""
    low, high = 0, 1000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_seen(middle / 1000) else (middle, high)
    return high / 1000


@lru_cache(maxsize=4096)
def _critical(count: int, alpha: float) -> int:
    """Of `count` disagreements, how many must favour the one model for the two-sided exact test; count + 1: never."""
    tail = np.cumsum(_binomial(count, 0.5)[::-1])  # at least count, at least count - 1, …
    return count + 1 - int(np.count_nonzero(2 * tail < alpha))


@lru_cache(maxsize=1)
def _log_factorials(size: int) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size)))])
    return logs


def _binomial(count: int, share: float) -> NDArray[np.float64]:
    """The probabilities of 0 … `count` successes."""
    if share >= 1:
        certain = np.zeros(count + 1)
        certain[count] = 1.0
        return certain
    logs = _log_factorials(1 << max(10, (count + 1).bit_length()))
    successes = np.arange(count + 1)
    ways = logs[count] - logs[successes] - logs[count - successes]
    result: NDArray[np.float64] = np.exp(ways + successes * math.log(share) + (count - successes) * math.log1p(-share))
    return result
