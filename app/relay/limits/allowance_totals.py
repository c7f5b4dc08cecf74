"""What of one key's limits was granted to this relay, what it has spent and told of that, and who runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from app.ipc import Amounts
from app.relay.limits.known_refusals import KnownRefusals, Refusal
from app.relay.limits.limit_headers import LimitNow
from app.relay.limits.prepaid import Prepaid
from app.table import WINDOW_S, Key, KeyLimits


class Lot(NamedTuple):
    """What was granted at once. `requests`, `tokens`, `budget`: what had been granted in all with it, so that what is
    left of it is that less what has been spent in all: the oldest is spent first."""

    slot: float
    ends: float
    requests: float
    tokens: float
    budget: float


class AllowanceTotals:
    """One key's. Running totals, so that a request costs a few comparisons; of what the key has no limit in, an
    infinite amount is granted. Times are those of one monotonic clock.

    `text`: the header lines about it, kept by whoever makes them until they would say something else: for a hundredth
    of a limit, or until the next report. `most_tokens`, `most_budget`: what a request may have at all. `peak`: of
    `running` lately.
    """

    # More than a class without them has fast.
    __slots__ = (
        "_changed",
        "_granted_budget",
        "_granted_requests",
        "_granted_tokens",
        "_looked_at",
        "_lots",
        "_low_budget",
        "_low_places",
        "_low_requests",
        "_low_tokens",
        "_mark_requests",
        "_mark_tokens",
        "_others_requests",
        "_others_tokens",
        "_paid",
        "_places",
        "_refusals",
        "_returned",
        "_settled",
        "_slot",
        "_spent_budget",
        "_spent_requests",
        "_spent_tokens",
        "_told_budget",
        "_told_requests",
        "_told_running",
        "_told_tokens",
        "counts_money",
        "counts_tokens",
        "has_budget",
        "id",
        "is_active",
        "is_low",
        "leaving",
        "limits",
        "most_budget",
        "most_tokens",
        "name",
        "peak",
        "place",
        "prepaid",
        "resets_at",
        "running",
        "text",
        "used_at",
    )

    def __init__(self, key: Key, changed: Callable[[], None]) -> None:
        self.id = key.id or key.name
        self.name = key.name
        self._changed = changed
        self.limits = KeyLimits()
        self.is_active = False
        # Of requests and tokens: what is left besides what relays may spend already, and when all of it is there again.
        self._others_requests = self._others_tokens = 0.0
        self.resets_at = -inf
        self.used_at = -inf  # when a request was last let through
        self._granted_requests = self._granted_tokens = self._granted_budget = inf
        self._spent_requests = self._spent_tokens = self._spent_budget = 0.0
        self._told_requests = self._told_tokens = self._told_budget = 0.0
        self.text: bytes | None = None
        # Beyond so much there is something to do: half of what was granted last is spent (`is_low`, at `_low_*`), or
        # what `text` says is not true any more.
        self._mark_requests = self._mark_tokens = -inf
        self._low_requests = self._low_tokens = self._low_budget = inf
        self.is_low = False
        self.place = 0  # 1 where `running` counts: requests that have a place
        self._lots: deque[Lot] = deque()
        self.prepaid: Prepaid | None = None  # of which some may be left
        self._paid: list[Prepaid] = []  # of which some run or are left
        self._slot = 0.0
        self._places = self._low_places = inf
        self.running = self._told_running = 0
        self.peak: float = 0
        self.leaving = 0.0  # places that go back as soon as a request leaves one: the key may have fewer than it had
        self._looked_at = 0.0
        self._returned: list[tuple[float, Amounts]] = []
        self._settled: dict[float, list[float]] = {}
        self._refusals = KnownRefusals()

    def __repr__(self) -> str:
        return f"<KeyAllowance {self.name} running={self.running} lots={len(self._lots)}>"

    def needs(self, tokens: float, budget: float) -> Amounts:
        """What a request with so many tokens needs, of what is limited."""
        limits = self.limits
        return Amounts(
            requests=1.0 if limits.rpm is not None else 0.0,
            tokens=tokens if limits.tpm is not None else 0.0,
            parallel=1.0 if limits.max_parallel is not None else 0.0,
            budget=budget if limits.budget is not None else 0.0,
        )

    def lacks(self, needs: Amounts) -> Amounts:
        """What of it has to be asked for: of each limit all that is needed, or nothing where that is here."""
        return Amounts(
            needs.requests if self._spent_requests + needs.requests > self._granted_requests else 0.0,
            needs.tokens if self._spent_tokens + needs.tokens > self._granted_tokens else 0.0,
            needs.parallel if self.running + needs.parallel > self._places else 0.0,
            needs.budget if self._spent_budget + needs.budget > self._granted_budget else 0.0,
        )

    def now(self, now: float) -> tuple[LimitNow | None, LimitNow | None, float]:
        """Requests and tokens as they are over all gateways, as far as is known here (None without such a limit), and
        in how many seconds all of both is there again. What may be spent here is left, too."""
        limits, prepaid = self.limits, self.prepaid
        left = 0 if prepaid is None else prepaid.left
        rpm, tpm, reset_s = limits.rpm, limits.tpm, self.used_at + WINDOW_S - now
        requests = tokens = None
        is_all_there = reset_s <= 0.0 and self.resets_at <= now
        if rpm is not None:
            others = rpm if is_all_there else self._others_requests
            remaining = self._granted_requests - self._spent_requests + left + others
            requests = (rpm, int(remaining) if 0.0 < remaining < rpm else rpm if remaining > 0.0 else 0)
        if tpm is not None:
            others = tpm if is_all_there else self._others_tokens
            spare = left * prepaid.tokens if prepaid is not None else 0.0
            remaining = self._granted_tokens - self._spent_tokens + spare + others
            tokens = (tpm, int(remaining) if 0.0 < remaining < tpm else tpm if remaining > 0.0 else 0)
        if self.resets_at - now > reset_s:
            reset_s = self.resets_at - now
        return requests, tokens, max(0.0, reset_s)

    def refusal(self, needs: Amounts, now: float) -> Refusal | None:
        """Why a request for which `take` had not enough need not be asked for; None where that has to be asked."""
        return self._refusals.of(self.lacks(needs), now)
