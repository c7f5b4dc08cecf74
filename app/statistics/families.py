"""Many tests at once: one of twenty is below 5 % by chance. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p value corrected for the others (Holm, 1979): the chance that any of those below a limit is there by chance
    alone stays below that limit, however the tests depend on each other. In the order given.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
