"""A histogram of the supervisor: counts by upper bound, and their sum. The relays' are in app/metrics.py."""

from __future__ import annotations

from collections.abc import Sequence

from app.shared_counters import Family, series_key


class BucketCounts:
    """How many observations there were up to each of `bounds` (ascending), and how much they came to. One writer."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def __repr__(self) -> str:
        return f"<BucketCounts {len(self)} sum={self._sum:g}>"

    def __len__(self) -> int:
        return sum(self._counts)

    def observe(self, value: float) -> None:
        """Count one more."""
        index = next((at for at, bound in enumerate(self._bounds) if value <= bound), len(self._bounds))
        self._counts[index] += 1
        self._sum += value

    def keyed(self, family: Family, labels: Sequence[str]) -> dict[bytes, list[float]]:
        """As a relay would keep it: the numbers by their key (app/shared_counters.py)."""
        return {series_key(family, labels): [*map(float, self._counts), self._sum]}

    @property
    def sum(self) -> float:
        """Of all observations."""
        return self._sum

    def cumulated(self) -> list[tuple[str, float]]:
        """(`le`, observations up to it), ascending, the last for `+Inf`: as Prometheus counts."""
        labels = [*(_label(bound) for bound in self._bounds), "+Inf"]
        return [(label, float(sum(self._counts[: at + 1]))) for at, label in enumerate(labels)]


def _label(bound: float) -> str:
    return repr(float(bound))
