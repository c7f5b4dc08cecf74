"""The figures of each round, and what they amount to: medians, spreads, ratios. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Round:
    """The figures of one round of one subject: CPU in microseconds, latency in milliseconds, memory in bytes. CPU and
    memory are 0 where there is no process to measure. `beside_…`: of its other processes, which do not carry the data.
    """

    cpu_per_request_us: float
    cpu_per_event_us: float
    beside_per_request_us: float
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    rss_bytes: float
    beside_rss_bytes: float
    failures: int


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of a figure over the rounds, with the lowest and the highest."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of these values, of which there is one at least."""
        return cls(median(values), min(values), max(values))

    def text(self, digits: int = 0) -> str:
        """`median (lowest–highest)`."""
        return f"{self.middle:,.{digits}f} ({self.low:,.{digits}f}–{self.high:,.{digits}f})"


# For each row: its title, its field, the divisor of its unit, its digits, and what it is compared with: nothing, the
# ratio to a subject, or (BARE) the difference to no proxy.
BARE = "no proxy"
_ROWS = (
    ("CPU-µs per request", "cpu_per_request_us", 1.0, 1, ""),
    ("× nginx", "cpu_per_request_us", 1.0, 2, "nginx"),
    ("× vllm-router", "cpu_per_request_us", 1.0, 2, "vllm-router"),
    ("× vllm-router, round robin", "cpu_per_request_us", 1.0, 2, "vllm-router, round robin"),
    ("CPU-µs per event", "cpu_per_event_us", 1.0, 1, ""),
    ("× nginx", "cpu_per_event_us", 1.0, 2, "nginx"),
    ("× vllm-router", "cpu_per_event_us", 1.0, 2, "vllm-router"),
    ("requests/s", "requests_per_s", 1.0, 0, ""),
    ("p50, one connection, ms", "p50_ms", 1.0, 3, ""),
    ("added to no proxy", "p50_ms", 1.0, 3, BARE),
    ("p99, one connection, ms", "p99_ms", 1.0, 3, ""),
    ("added to no proxy", "p99_ms", 1.0, 3, BARE),
    ("RSS MB", "rss_bytes", 1e6, 0, ""),
    ("RSS MB of the supervisor beside it", "beside_rss_bytes", 1e6, 0, ""),
    ("CPU-µs of the supervisor per request", "beside_per_request_us", 1.0, 1, ""),
)


def rows(measured: Mapping[str, Sequence[Round]]) -> list[tuple[str, ...]]:
    """A row for each figure, a column for each subject; a dash where there is nothing to say.

    Comparisons are made round by round, then summed up. `no proxy` is always a subject; others need not be.
    """
    table: list[tuple[str, ...]] = []
    for title, name, unit, digits, against in _ROWS:
        cells = [
            _cell([getattr(each, name) / unit for each in rounds], measured.get(against, ()), name, digits, against)
            for rounds in measured.values()
        ]
        table.append((title, *cells))
    failures = (str(sum(each.failures for each in rounds)) for rounds in measured.values())
    return [*table, ("failures", *failures)]


def _cell(values: Sequence[float], reference: Sequence[Round], name: str, digits: int, against: str) -> str:
    if not any(values):
        return "–"
    if not against:
        return Spread.of(values).text(digits)
    others = [getattr(each, name) for each in reference]
    if not others or (against == BARE and list(values) == others):
        return "–"
    pairs = zip(values, others, strict=True)
    return Spread.of([one - other if against == BARE else one / other for one, other in pairs]).text(digits)
