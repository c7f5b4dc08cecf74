"""What this relay may spend of one key's limits, and what it has spent of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, Literal, NamedTuple, TypeAlias

from app.ipc import NOTHING, Allowance, Amounts, Spent
from app.relay.limits.limit_headers import LimitNow
from app.relay.limits.reservation import Reservation
from app.relay.planning.token_estimate import NO_TOKENS, TokenEstimate
from app.table import WINDOW_S, Key, KeyLimits

LimitName: TypeAlias = Literal["requests", "tokens", "parallel", "budget"]
# Places that no request has had for so long go back to the supervisor.
IDLE_S: Final = 2.0
# So long before the end of what was granted last, more is asked for where it is used.
ENDING_S: Final = 0.5
# A refusal that says no time, or none to speak of, is remembered for so long.
LEAST_S: Final = 0.05


class _Lot(NamedTuple):
    """What was granted at once. `requests`, `tokens`, `budget`: what had been granted in all with it, so that what is
    left of it is that less what has been spent in all: the oldest is spent first."""

    slot: float
    ends: float
    requests: float
    tokens: float
    budget: float


class Refusal(NamedTuple):
    """Of which limit a key had not as much as a request needed (`amount`), and until when (of the clock)."""

    limit: LimitName
    amount: float
    until: float
    reason: str


class KeyAllowance:
    """One key's. Times are those of one monotonic clock; nothing here waits or sends.

    What is spent and what was granted are running totals, so that a request costs a few comparisons. Of what the key
    has no limit in, an infinite amount is granted. `changed` is called when there is something to report or to give
    back later, and was not before. `text`: the header lines about it, kept by whoever makes them until they would say
    something else: for a hundredth of a limit, or until the next report. `most_tokens`, `most_budget`: what a request
    may have at all.
    """

    # More than a class without them has fast.
    __slots__ = (
        "_changed",
        "_counts_places",
        "_granted_budget",
        "_granted_requests",
        "_granted_tokens",
        "_leaving",
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
        "_peak",
        "_places",
        "_refusals",
        "_returned",
        "_running",
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
        "limits",
        "most_budget",
        "most_tokens",
        "name",
        "resets_at",
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
        self._counts_places = False
        self._lots: deque[_Lot] = deque()
        self._slot = 0.0
        self._places = self._low_places = inf
        self._running = self._told_running = self._peak = 0
        self._leaving = 0.0  # places that go back as soon as a request leaves one: the key may have fewer than it had
        self._looked_at = 0.0
        self._returned: list[tuple[float, Amounts]] = []
        self._settled: dict[float, list[float]] = {}
        self._refusals: dict[LimitName, Refusal] = {}
        self.follow(key)

    def __repr__(self) -> str:
        return f"<KeyAllowance {self.name} running={self._running} lots={len(self._lots)}>"

    def follow(self, key: Key) -> bool:
        """The key as it is now; whether its limits are others than before. What was drawn under those is given back."""
        limits = key.limits or KeyLimits()
        self.name = key.name
        if limits == self.limits:
            return False
        self.give_back()
        had, self.limits = self.limits.max_parallel, limits
        self.counts_tokens = limits.tpm is not None or limits.budget is not None
        self.has_budget = limits.budget is not None
        self.counts_money = limits.budget is not None and limits.budget.unit == "money"
        self.most_budget = limits.budget.amount if limits.budget is not None else inf
        self.most_tokens = limits.tpm if limits.tpm is not None else inf
        self.text, self._mark_requests, self._mark_tokens = None, -inf, -inf
        self._granted_requests = self._spent_requests if limits.rpm is not None else inf
        # Of what had no limit so much may have been spent that a sum with it is not exact.
        self._told_tokens, self._spent_tokens = self._told_tokens - self._spent_tokens, 0.0
        self._granted_tokens = 0.0 if limits.tpm is not None else inf
        self._granted_budget = self._spent_budget if limits.budget is not None else inf
        self._low_requests = self._low_tokens = self._low_budget = inf
        self._low_places = inf
        self.is_low, self._counts_places = False, limits.max_parallel is not None
        if limits.max_parallel is None or had is None:
            self._places, self._leaving = inf if limits.max_parallel is None else 0, 0.0
        elif limits.max_parallel < had:
            self._leaving = self._places
        self._others_requests, self._others_tokens, self.resets_at = limits.rpm or 0.0, limits.tpm or 0.0, -inf
        self._refusals.clear()
        return True

    # -- for requests

    def needs(self, tokens: float, budget: float) -> Amounts:
        """What a request with so many tokens needs, of what is limited."""
        limits = self.limits
        return Amounts(
            requests=1.0 if limits.rpm is not None else 0.0,
            tokens=tokens if limits.tpm is not None else 0.0,
            parallel=1.0 if limits.max_parallel is not None else 0.0,
            budget=budget if limits.budget is not None else 0.0,
        )

    def take(
        self, now: float, tokens: float = 0.0, budget: float = 0.0, estimated: TokenEstimate = NO_TOKENS
    ) -> Reservation | None:
        """Spend what a request needs; None where that is not there."""
        requests, all_tokens, running = self._spent_requests + 1.0, self._spent_tokens + tokens, self._running
        if requests > self._granted_requests or all_tokens > self._granted_tokens or running >= self._places:
            return None
        if budget:
            all_budget = self._spent_budget + budget
            if all_budget > self._granted_budget:
                return None
            self._spent_budget = all_budget
            if all_budget > self._low_budget:
                self.is_low = True
        self._spent_requests, self._spent_tokens, self.used_at = requests, all_tokens, now
        if requests > self._mark_requests or all_tokens > self._mark_tokens:
            self._pass_mark()
        if self._counts_places:
            self._running = running = running + 1
            if running > self._peak:
                self._peak = running
                if running >= self._low_places:
                    self.is_low = True
        if not self.is_active:
            self._activate()
        return Reservation(self, self._slot, estimated, tokens, budget, self._counts_places)

    def is_ending(self, now: float) -> bool:
        """Whether what was granted last is not valid for much longer, while requests come."""
        return bool(self._lots) and self._lots[-1].ends - now < ENDING_S and now - self.used_at < ENDING_S

    def _pass_mark(self) -> None:
        limits, requests, tokens = self.limits, self._spent_requests, self._spent_tokens
        if requests > self._low_requests or tokens > self._low_tokens:
            self.is_low = True
        self.text = None
        self._mark_requests = self._mark_tokens = inf
        if limits.rpm is not None:
            self._mark_requests = requests + limits.rpm / 100
        if limits.tpm is not None:
            self._mark_tokens = tokens + limits.tpm / 100
        if not self.is_low:
            self._mark_requests = min(self._mark_requests, self._low_requests)
            self._mark_tokens = min(self._mark_tokens, self._low_tokens)

    def settle(self, slot: float, requests: float, tokens: float, budget: float) -> None:
        """A request is over, and was so much more (negative: less) than what was spent for it under that slot."""
        if self._granted_requests == inf:
            requests = 0.0
        if self._granted_tokens == inf:
            tokens = 0.0
        settled = self._settled.get(slot)
        if settled is None:
            settled = self._settled[slot] = [0.0, 0.0, 0.0]
        settled[0] += requests
        settled[1] += tokens
        settled[2] += budget
        if not self.is_active:
            self._activate()

    def leave(self) -> None:
        """A request has left its place."""
        self._running -= 1
        if self._leaving > 0:
            self._leaving -= 1
            self._places -= 1
            self._returned.append((0.0, Amounts(parallel=1.0)))
        if not self.is_active:
            self._activate()

    def now(self, now: float) -> tuple[LimitNow | None, LimitNow | None, float]:
        """Requests and tokens as they are over all gateways, as far as is known here (None without such a limit), and
        in how many seconds all of both is there again. What may be spent here is left, too."""
        limits = self.limits
        rpm, tpm, reset_s = limits.rpm, limits.tpm, self.used_at + WINDOW_S - now
        requests = tokens = None
        is_all_there = reset_s <= 0.0 and self.resets_at <= now
        if rpm is not None:
            others = rpm if is_all_there else self._others_requests
            remaining = self._granted_requests - self._spent_requests + others
            requests = (rpm, int(remaining) if 0.0 < remaining < rpm else rpm if remaining > 0.0 else 0)
        if tpm is not None:
            others = tpm if is_all_there else self._others_tokens
            remaining = self._granted_tokens - self._spent_tokens + others
            tokens = (tpm, int(remaining) if 0.0 < remaining < tpm else tpm if remaining > 0.0 else 0)
        if self.resets_at - now > reset_s:
            reset_s = self.resets_at - now
        return requests, tokens, max(0.0, reset_s)

    def lacks(self, needs: Amounts) -> Amounts:
        """What of it has to be asked for: of each limit all that is needed, or nothing where that is here."""
        return Amounts(
            needs.requests if self._spent_requests + needs.requests > self._granted_requests else 0.0,
            needs.tokens if self._spent_tokens + needs.tokens > self._granted_tokens else 0.0,
            needs.parallel if self._running + needs.parallel > self._places else 0.0,
            needs.budget if self._spent_budget + needs.budget > self._granted_budget else 0.0,
        )

    def refusal(self, needs: Amounts, now: float) -> Refusal | None:
        """Why a request for which `take` had not enough need not be asked for: the last word of the supervisor on as
        much or less. None where that has to be asked."""
        told: Refusal | None = None
        lacks = self.lacks(needs)
        for limit, refusal in list(self._refusals.items()):
            if refusal.until <= now:
                del self._refusals[limit]
            elif (lacking := getattr(lacks, limit)) and lacking >= refusal.amount:
                told = refusal if told is None or refusal.until > told.until else told
        return told

    # -- for the supervisor

    def add(self, allowance: Allowance, needs: Amounts, now: float) -> None:
        """What the supervisor grants and says in reply to these needs. Of needs of nothing, a refusal is forgotten;
        what comes unasked takes back those before it."""
        granted, limits = allowance.granted, self.limits
        self.text, self._mark_requests, self._mark_tokens = None, -inf, -inf
        if limits.rpm is not None and granted.requests:
            self._granted_requests += granted.requests
            self._low_requests = self._granted_requests - granted.requests / 2
        if limits.tpm is not None and granted.tokens:
            self._granted_tokens += granted.tokens
            self._low_tokens = self._granted_tokens - granted.tokens / 2
        if limits.budget is not None and granted.budget:
            self._granted_budget += granted.budget
            self._low_budget = self._granted_budget - granted.budget / 2
        self.is_low = (
            self._spent_requests > self._low_requests
            or self._spent_tokens > self._low_tokens
            or self._spent_budget > self._low_budget
        )
        if limits.max_parallel is not None and granted.parallel:
            self._places += granted.parallel
            self._looked_at, self._peak = now, self._running
            self._low_places = self._places if self._places < limits.max_parallel else inf
        if granted.requests or granted.tokens or granted.budget:
            marks = (self._granted_requests, self._granted_tokens, self._granted_budget)
            self._lots.append(_Lot(allowance.slot, now + allowance.valid_s, *marks))
            if len(self._lots) == 1:
                self._slot = allowance.slot
        if allowance.seq == 0 or granted != NOTHING:
            self._refusals.clear()
        if granted != NOTHING:
            self._activate()
        if allowance.requests is not None:
            self._others_requests = allowance.requests.remaining
            self.resets_at = now + allowance.requests.reset_s
        if allowance.tokens is not None:
            self._others_tokens = allowance.tokens.remaining
            self.resets_at = max(self.resets_at, now + allowance.tokens.reset_s)
        if allowance.refused is not None and needs != NOTHING:
            limit = allowance.refused
            until = now + max(allowance.retry_after_s, LEAST_S)
            self._refusals[limit] = Refusal(limit, getattr(needs, limit), until, allowance.reason)

    def report(self, now: float) -> Spent | None:
        """What is to be told since the last time, None where that is nothing. What has been here for too long is given
        back; `is_active` says whether there will be more to report."""
        self.text = None
        while self._lots and self._lots[0].ends <= now:
            self._end_lot(self._lots.popleft())
        if self._counts_places:
            self._return_places(now)
        spent = Amounts(
            requests=self._spent_requests - self._told_requests if self._granted_requests < inf else 0.0,
            tokens=self._spent_tokens - self._told_tokens if self._granted_tokens < inf else 0.0,
            parallel=self._running - self._told_running,
            budget=self._spent_budget - self._told_budget if self._granted_budget < inf else 0.0,
        )
        self._told_requests, self._told_tokens = self._spent_requests, self._spent_tokens
        self._told_budget, self._told_running = self._spent_budget, self._running
        returned, self._returned = tuple(self._returned), []
        settled, self._settled = self._settled, {}
        self.is_active = bool(self._lots) or self._running > 0 or 0 < self._places < inf
        if spent == NOTHING and not returned and not settled:
            return None
        if any(requests < 0 or tokens < 0 for requests, tokens, _ in settled.values()):
            self._refusals.clear()  # once this is told there may be enough
        return Spent(
            self.id,
            spent,
            returned,
            tuple(
                (slot, Amounts(requests, tokens, 0.0, budget)) for slot, (requests, tokens, budget) in settled.items()
            ),
        )

    def give_back(self) -> None:
        """Have the next report give back all that was granted and is not spent."""
        while self._lots:
            self._end_lot(self._lots.popleft())
        if self._counts_places and self._places > 0:
            self._returned.append((0.0, Amounts(parallel=self._places - min(self._places, self._running))))
            self._places = min(self._places, self._running)
        self._activate()

    def _activate(self) -> None:
        if not self.is_active:
            self.is_active = True
            self._changed()

    def _end_lot(self, lot: _Lot) -> None:
        """What is left of it counts as spent here, and is told as returned."""
        requests = max(0.0, lot.requests - self._spent_requests) if lot.requests < inf else 0.0
        tokens = max(0.0, lot.tokens - self._spent_tokens) if lot.tokens < inf else 0.0
        budget = max(0.0, lot.budget - self._spent_budget) if lot.budget < inf else 0.0
        self._slot = self._lots[0].slot if self._lots else lot.slot
        if requests or tokens or budget:
            self._spent_requests, self._told_requests = self._spent_requests + requests, self._told_requests + requests
            self._spent_tokens, self._told_tokens = self._spent_tokens + tokens, self._told_tokens + tokens
            self._spent_budget, self._told_budget = self._spent_budget + budget, self._told_budget + budget
            self._returned.append((lot.slot, Amounts(requests, tokens, 0.0, budget)))

    def _return_places(self, now: float) -> None:
        if now - self._looked_at < IDLE_S:
            return
        spare = self._places - self._peak
        if spare > 0:
            self._places -= spare
            self._low_places = self._places
            self._returned.append((0.0, Amounts(parallel=spare)))
        self._looked_at, self._peak = now, self._running
