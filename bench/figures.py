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


# For each row: its title, its field, the divisor of its unit, its digits, and what it is compared with.
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
    table: list[tuple[str, ...]] = []
    for title, name, unit, digits, against in _ROWS:
        reference = {"itself": None, "bare": measured["no proxy"], "nginx": measured.get("nginx", ())}[against]
        cells = [
            _cell([getattr(each, name) / unit for each in rounds], reference, name, digits, against)
            for rounds in measured.values()
        ]
        table.append((title, *cells))
    failures = (str(sum(each.failures for each in rounds)) for rounds in measured.values())
    return [*table, ("failures", *failures)]


def _cell(values: Sequence[float], reference: Sequence[Round] | None, name: str, digits: int, against: str) -> str:
    if reference is None:
        return Spread.of(values).text(digits) if any(values) else "–"
    others = [getattr(each, name) for each in reference]
    if not others or not any(values) or (against == "bare" and list(values) == others):
        return "–"
    pairs = zip(values, others, strict=True)
    return Spread.of([one - other if against == "bare" else one / other for one, other in pairs]).text(digits)


def beside(rounds: Sequence[Round]) -> str:
    """What the supervisor costs beside the relay, in a sentence."""
    cpu = Spread.of([each.beside_per_request_us for each in rounds]).text(1)
    rss = Spread.of([each.beside_rss_bytes / 1e6 for each in rounds]).text()
    return f"The supervisor beside it: {cpu} CPU-µs per request, RSS {rss} MB."
