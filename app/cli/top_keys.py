"""What `modelport top` shows of keys and of the store, made of the gateway's counters. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_COUNTED: Final = {
    ("modelport_key_requests_total", None): "requests",
    ("modelport_key_tokens_total", "input"): "tokens",
    ("modelport_key_tokens_total", "output"): "tokens",
    ("modelport_key_money_total", None): "money",
    ("modelport_limited_total", None): "refused",
}
_STORE: Final = {
    "modelport_store_up": "up",
    "modelport_gateways": "gateways",
    "modelport_usage_pending": "pending",
}


@dataclass(slots=True)
class TeamLook:
    """One look: by key what was counted of it since the gateway's start, and how full each of its limits is (0 to 1);
    of the store whether it responds (1 or 0), how many gateways share it, how many usage records are not in it yet.
    """

    keys: defaultdict[str, defaultdict[str, float]] = field(default_factory=lambda: defaultdict(_counts))
    limits: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    store: dict[str, float] = field(default_factory=dict)

    def see(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """One sample of the page; any other is passed over."""
        if (counted := _COUNTED.get((name, labels.get("gen_ai_token_type")))) is not None:
            self.keys[labels.get("key", "")][counted] += value
        elif name == "modelport_key_limit_ratio":
            self.limits[labels.get("key", "")][labels.get("limit", "")] = value
        elif (stored := _STORE.get(name)) is not None:
            self.store[stored] = value


def _counts() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One key. Rates are over the time between two looks, None where there was only one. `money`: what its requests
    cost since the gateway's start; `refused`: how many its limits have refused since then. `fullest`: the limit that is
    nearest to its end, and how full it is (0 to 1); None without limits.
    """

    name: str
    requests_s: float | None
    tokens_s: float | None
    money: float
    refused: int
    fullest: tuple[str, float] | None


@dataclass(frozen=True, slots=True)
class StoreLine:
    """The store. `gateways`: that share it, None where nobody knows; `pending`: usage records not in it yet."""

    is_up: bool
    gateways: int | None
    pending: int


def key_lines(now: TeamLook, before: TeamLook | None, seconds: float) -> tuple[KeyLine, ...]:
    """Every key that has used or been refused something, or has limits. `before`: `seconds` earlier."""
    return tuple(
        _line(name, now, before, seconds)
        for name in sorted({*now.keys, *now.limits})
        if name in now.limits or any(now.keys[name].values())
    )


def _line(name: str, now: TeamLook, before: TeamLook | None, seconds: float) -> KeyLine:
    counted: Mapping[str, float] = now.keys.get(name, {})
    limits = now.limits.get(name, {})

    def rate(what: str) -> float | None:
        if before is None:
            return None
        earlier: Mapping[str, float] = before.keys.get(name, {})
        return max(0.0, counted.get(what, 0.0) - earlier.get(what, 0.0)) / seconds

    return KeyLine(
        name=name,
        requests_s=rate("requests"),
        tokens_s=rate("tokens"),
        money=counted.get("money", 0.0),
        refused=round(counted.get("refused", 0.0)),
        fullest=max(limits.items(), key=lambda each: each[1], default=None),
    )


def store_line(now: TeamLook) -> StoreLine | None:
    """The store; None where the gateway says nothing of it."""
    if "up" not in now.store:
        return None
    gateways = now.store.get("gateways")
    return StoreLine(
        is_up=bool(now.store["up"]),
        gateways=round(gateways) if gateways is not None else None,
        pending=round(now.store.get("pending", 0.0)),
    )
