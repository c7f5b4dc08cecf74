"""What was measured in each round, and what that amounts to: medians, spreads, ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one subject. CPU in microseconds, latency in milliseconds, memory in bytes; CPU and memory are 0
    where there is no process to measure."""

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
    """The median of the rounds and how far they went."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))

    def told(self, digits: int = 0) -> str:
        """`median (lowest–highest)`."""
        return f"{self.middle:,.{digits}f} ({self.low:,.{digits}f}–{self.high:,.{digits}f})"


# What a row says, the field it is from, what its unit divides by, digits, and what it is compared with.
_ROWS = (
    ("CPU-µs per request", "cpu_per_request_us", 1.0, 1, "itself"),
    ("× nginx", "cpu_per_request_us", 1.0, 1, "nginx"),
    ("CPU-µs per event", "cpu_per_event_us", 1.0, 1, "itself"),
    ("× nginx", "cpu_per_event_us", 1.0, 1, "nginx"),
    ("requests/s", "requests_per_s", 1.0, 0, "itself"),
    ("p50, one connection, ms", "p50_ms", 1.0, 3, "itself"),
    ("added to no proxy", "p50_ms", 1.0, 3, "bare"),
    ("p99, one connection, ms", "p99_ms", 1.0, 3, "itself"),
    ("added to no proxy", "p99_ms", 1.0, 3, "bare"),
    ("RSS MB", "rss_bytes", 1e6, 0, "itself"),
)


def rows(measured: Mapping[str, Sequence[Round]]) -> list[tuple[str, ...]]:
    """A row for each figure, a column for each subject; a dash where there is nothing to say.

    Comparisons are made round by round, then summed up. `no proxy` is always among the subjects; nginx need not be.
    """
    found: list[tuple[str, ...]] = []
    for title, name, unit, digits, against in _ROWS:
        reference = {"itself": None, "bare": measured["no proxy"], "nginx": measured.get("nginx", ())}[against]
        cells = [
            _cell([getattr(each, name) / unit for each in rounds], reference, name, digits, against)
            for rounds in measured.values()
        ]
        found.append((title, *cells))
    failures = (str(sum(each.failures for each in rounds)) for rounds in measured.values())
    return [*found, ("failures", *failures)]


def _cell(values: Sequence[float], reference: Sequence[Round] | None, name: str, digits: int, against: str) -> str:
    if reference is None:
        return Spread.of(values).told(digits) if any(values) else "–"
    others = [getattr(each, name) for each in reference]
    if not others or not any(values) or (against == "bare" and list(values) == others):
        return "–"
    pairs = zip(values, others, strict=True)
    return Spread.of([one - other if against == "bare" else one / other for one, other in pairs]).told(digits)


def beside(rounds: Sequence[Round]) -> str:
    """What the supervisor costs beside the relay, in a sentence."""
    cpu = Spread.of([each.beside_per_request_us for each in rounds]).told(1)
    rss = Spread.of([each.beside_rss_bytes / 1e6 for each in rounds]).told()
    return f"The supervisor beside it: {cpu} CPU-µs per request, RSS {rss} MB."
