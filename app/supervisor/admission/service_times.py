"""How long requests have held their permits, and what that says of when places come free. Pure."""

from __future__ import annotations

import bisect
import collections
import itertools
import math
from collections.abc import Sequence
from typing import Final

# So many of the latest requests are remembered: a change of the load is known after as many.
KEPT: Final = 128
# Of more requests that run, every so many is looked at: it is asked before each request that has to wait.
LOOKED_AT: Final = 64
# Fewer times say little of the next one: then as many places are promised as this times those that are expected.
LEAST: Final = 8
BENEFIT: Final = 2.0
# A request that runs longer than any that is remembered is taken to go on for this part of the longest.
SURPRISE: Final = 0.02
# The first place is as good as certain where it fails to come so seldom.
DOUBT: Final = 0.2


class ServiceTimes:
    """The latest KEPT times, in seconds. `mean_s`: of them, None while there is none."""

    def __init__(self) -> None:
        self.mean_s: float | None = None
        self._variability = 0.0  # their variance by the square of their mean
        self._latest: collections.deque[float] = collections.deque()
        self._sorted: list[float] = []
        self._sums: list[float] = [0.0]

    def __repr__(self) -> str:
        return f"<ServiceTimes {len(self._latest)} mean_s={self.mean_s}>"

    @property
    def is_known(self) -> bool:
        """Whether there are enough of them to say something of the next one."""
        return len(self._latest) >= LEAST and bool(self.mean_s)

    def note(self, held_s: float) -> None:
        """A request held its permit for so long."""
        if len(self._latest) == KEPT:
            del self._sorted[bisect.bisect_left(self._sorted, self._latest.popleft())]
        self._latest.append(held_s)
        bisect.insort(self._sorted, held_s)
        self._sums = [0.0, *itertools.accumulate(self._sorted)]
        self.mean_s = mean_s = self._sums[-1] / len(self._sorted)
        if mean_s > 0.0:
            squares = sum((each - mean_s) ** 2 for each in self._sorted)
            self._variability = squares / len(self._sorted) / mean_s**2

    def places(self, elapsed: Sequence[float], within_s: float) -> float:
        """How many places come free within so many seconds, cautiously: the expected number less its deviation.

        `elapsed`: how long each request that has a place has had it. A place that comes free early may do so again.
        Infinite while nothing is known, and generous while little is.
        """
        if not self.mean_s:
            return math.inf
        if not self.is_known:  # requests that still run count with what they have taken so far
            mean_s = (self._sums[-1] + sum(elapsed)) / len(self._latest)
            return BENEFIT * within_s * len(elapsed) / mean_s
        step = -(-len(elapsed) // LOOKED_AT) or 1
        looked_at = elapsed[::step]
        expected = variance = 0.0
        none = 1.0
        for since in looked_at:
            share, again = self._releases(since, within_s, self.mean_s)
            expected, variance = expected + share + again, variance + share * (1.0 - share) + again * self._variability
            none *= 1.0 - share
        scale = len(elapsed) / len(looked_at) if looked_at else 0.0
        return max(expected * scale - math.sqrt(variance * scale), 1.0 if none <= DOUBT else 0.0)

    def _releases(self, since: float, within_s: float, mean_s: float) -> tuple[float, float]:
        """How probably one place comes free within so long, and how often again after that, judged by those of the
        remembered times that are longer than it has been held."""
        first, last = (bisect.bisect_right(self._sorted, each) for each in (since, since + within_s))
        longer = len(self._sorted) - first
        if longer == 0:
            rest_s = SURPRISE * self._sorted[-1]
            return (1.0, (within_s - rest_s) / mean_s) if rest_s <= within_s else (0.0, 0.0)
        share = (last - first) / longer
        left_s = ((last - first) * (within_s + since) - (self._sums[last] - self._sums[first])) / longer
        return share, left_s / mean_s
