"""The series of keys, of the store and of the gateways that share it: what the supervisor knows of them.

What relays refuse by a key's limits is theirs to count (`modelport_limited_total`, app/metrics.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from app.metrics import MOST_KEYS, OTHER_KEYS
from app.supervisor.metrics.bucket_counts import BucketCounts

# Of one call, in seconds: a file answers in tens of microseconds, and a server is given up after some seconds.
STORE_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """What was recorded of one key's requests since the gateway's start. `money`: by the prices of the models."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    money: float = 0.0

    def __add__(self, other: KeyCounts) -> KeyCounts:
        return KeyCounts(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.money + other.money,
        )


class KeyTotals:
    """What each key has used since the gateway's start, for as many keys as may have series of their own; all others
    are OTHER_KEYS together. Once a key has its own, it keeps them. One writer.
    """

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most = most
        self._of: dict[str, KeyCounts] = {}

    def __repr__(self) -> str:
        return f"<KeyTotals {len(self._of)} keys>"

    def follow(self, names: Set[str]) -> None:
        """Begin at 0 what will be counted of all these keys, unless they are too many: then those have series that are
        used. The growth of a series that begins later is not seen.
        """
        for name in sorted(names) if len(names) <= self._most else ():
            self._counted(name, KeyCounts())

    def add(self, name: str, more: KeyCounts) -> None:
        """Count what requests of the key of this name have used."""
        self._counted(name, more)

    def _counted(self, name: str, more: KeyCounts) -> None:
        if name not in self._of and len(self._of) >= self._most:
            name = OTHER_KEYS
        self._of[name] = self._of.get(name, KeyCounts()) + more

    def shown(self) -> dict[str, KeyCounts]:
        """A copy, by the keys' names."""
        return dict(self._of)


@dataclass(frozen=True, slots=True)
class TeamCounts:
    """The team's side of the gateway at one moment.

    `is_store_up`: the store responds. `store_seconds`: of its calls, by operation. `gateways`: how many share it, as
    far as is known; None: nobody knows. `pending`: usage records that are not in the store yet; `lost`: that never will
    be. `keys`: what each key has used, by name; `limits`: as (key's name, limit as the configuration calls it, the
    share of it that is used, 0 to 1).
    """

    is_store_up: bool = True
    store_seconds: Mapping[str, BucketCounts] = field(default_factory=dict)
    gateways: int | None = None
    pending: int = 0
    lost: int = 0
    keys: Mapping[str, KeyCounts] = field(default_factory=dict)
    limits: Sequence[tuple[str, str, float]] = ()


def team_series(counts: TeamCounts) -> Iterator[Metric]:
    """All of them; a family without a key is there too."""
    yield from _store(counts)
    yield from _usage(counts)
    yield from _keys(counts.keys)
    used = GaugeMetricFamily(
        "modelport_key_limit_ratio", "The share of a key's limit that is used.", labels=["key", "limit"]
    )
    # Keys beyond MOST_KEYS have no series: the fullest of them stands for all.
    shares: dict[tuple[str, str], float] = {}
    own = set(list(dict.fromkeys(key for key, _, _ in counts.limits))[:MOST_KEYS])
    for key, limit, share in counts.limits:
        name = key if key in own else OTHER_KEYS
        shares[name, limit] = max(share, shares.get((name, limit), 0.0))
    for (key, limit), share in shares.items():
        used.add_metric([key, limit], share)
    yield used


def _store(counts: TeamCounts) -> Iterator[Metric]:
    yield _gauge("modelport_store_up", "1 while the store responds, else 0.", float(counts.is_store_up))
    seconds = HistogramMetricFamily(
        "modelport_store_seconds", "How long calls of the store took, those that failed included.", labels=["operation"]
    )
    for operation, buckets in counts.store_seconds.items():
        seconds.add_metric([operation], buckets.cumulated(), buckets.sum)
    yield seconds
    known = GaugeMetricFamily("modelport_gateways", "Gateways that share the store, as far as this one knows.")
    if counts.gateways is not None:
        known.add_metric([], counts.gateways)
    yield known


def _usage(counts: TeamCounts) -> Iterator[Metric]:
    yield _gauge("modelport_usage_pending", "Usage records that are not in the store yet.", counts.pending)
    lost = CounterMetricFamily("modelport_usage_lost_total", "Usage records that could be kept nowhere.")
    lost.add_metric([], counts.lost)
    yield lost


def _keys(keys: Mapping[str, KeyCounts]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "modelport_key_requests_total", "Requests that usage was recorded of, by key.", labels=["key"]
    )
    tokens = CounterMetricFamily(
        "modelport_key_tokens_total",
        "Tokens that usage was recorded of, by key.",
        labels=["key", "gen_ai_token_type"],
    )
    money = CounterMetricFamily(
        "modelport_key_money_total", "What the recorded usage cost, by key and the models' prices.", labels=["key"]
    )
    for key, counts in keys.items():
        requests.add_metric([key], counts.requests)
        tokens.add_metric([key, "input"], counts.input_tokens)
        tokens.add_metric([key, "output"], counts.output_tokens)
        money.add_metric([key], counts.money)
    yield from (requests, tokens, money)


def _gauge(name: str, text: str, value: float) -> Metric:
    gauge = GaugeMetricFamily(name, text)
    gauge.add_metric([], value)
    return gauge
