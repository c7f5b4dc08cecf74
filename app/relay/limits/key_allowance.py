"""What this relay may spend of one key's limits, and what it has spent of it."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from app.ipc import NOTHING, Allowance, Amounts, Spent
from app.relay.limits.allowance_totals import AllowanceTotals, Lot
from app.relay.limits.known_refusals import Refusal
from app.relay.limits.prepaid import FEWEST, MOST, Prepaid, SmallRequest
from app.relay.limits.reservation import Reservation
from app.table import Key, KeyLimits

# Places that no request has had for so long go back to the supervisor.
IDLE_S: Final = 2.0
# So long before the end of what was granted last, more is asked for where it is used.
ENDING_S: Final = 0.5
# A refusal that says no time, or none to speak of, is remembered for so long.
LEAST_S: Final = 0.05


class KeyAllowance(AllowanceTotals):
    """One key's. Nothing here waits or sends. `changed` is called when there is something to report or to give back
    later, and was not before.
    """

    __slots__ = ()

    def __init__(self, key: Key, changed: Callable[[], None]) -> None:
        super().__init__(key, changed)
        self.follow(key)

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
        self.is_low, self.place = False, 0 if limits.max_parallel is None else 1
        if limits.max_parallel is None or had is None:
            self._places, self.leaving = inf if limits.max_parallel is None else 0, 0.0
        elif limits.max_parallel < had:
            self.leaving = self._places
        self._others_requests, self._others_tokens, self.resets_at = limits.rpm or 0.0, limits.tpm or 0.0, -inf
        self._refusals.forget()
        return True

    # -- for requests

    def take(self, now: float, tokens: float = 0.0, budget: float = 0.0, assumed: int = 0) -> Reservation | None:
        """Spend what a request needs; None where that is not there. `assumed`: the tokens of an answer that nobody
        bounds."""
        requests, all_tokens, running = self._spent_requests + 1.0, self._spent_tokens + tokens, self.running
        if running >= self._places:
            return None
        if requests > self._granted_requests or all_tokens > self._granted_tokens:
            return self._take_after_all(now, tokens, budget, assumed)
        if budget:
            all_budget = self._spent_budget + budget
            if all_budget > self._granted_budget:
                return self._take_after_all(now, tokens, budget, assumed)
            self._spent_budget = all_budget
            if all_budget > self._low_budget:
                self.is_low = True
        self._spent_requests, self._spent_tokens, self.used_at = requests, all_tokens, now
        if requests > self._mark_requests or all_tokens > self._mark_tokens:
            self._pass_mark()
        if self.place:
            self.running = running = running + 1
            if running > self.peak:
                self.peak = running
                if running >= self._low_places:
                    self.is_low = True
        if not self.is_active:
            self._activate()
        return Reservation(self, self._slot, tokens, budget, self.place, assumed)

    def _take_after_all(self, now: float, tokens: float, budget: float, assumed: int) -> Reservation | None:
        """There is not as much, unless it was paid for ahead."""
        if self.prepaid is None or not self.prepaid.left:
            return None
        self.reclaim()
        return self.take(now, tokens, budget, assumed)

    def may_prepay(self, tokens: float) -> bool:
        """Whether it may be worth looking what is as small as a request with so many tokens."""
        return (
            self._spent_requests + FEWEST <= self._mark_requests
            and self._spent_tokens + FEWEST * tokens <= self._mark_tokens
            and (self.prepaid is None or not self.prepaid.left)
        )

    def prepay(self, small: SmallRequest, budget: float, assumed: int) -> None:
        """Pay ahead for as many small requests as reach nothing that has to be looked at. `budget`: of each."""
        if self.is_low:
            return
        self.reclaim()
        tokens = small.tokens if self.counts_tokens else 0
        count = min(float(MOST), min(self._granted_requests, self._mark_requests) - self._spent_requests)
        if tokens:
            count = min(count, (min(self._granted_tokens, self._mark_tokens) - self._spent_tokens) / tokens)
        if budget:
            count = min(count, (min(self._granted_budget, self._low_budget) - self._spent_budget) / budget)
        if count < FEWEST:
            return
        self.prepaid = Prepaid(self, small, self._slot, int(count), budget, assumed)
        self._paid.append(self.prepaid)
        self._pay(self.prepaid, int(count))

    def reclaim(self) -> None:
        """Have back what was paid for ahead and nobody has needed."""
        prepaid, self.prepaid = self.prepaid, None
        if prepaid is not None:
            left, prepaid.left = prepaid.left, 0
            prepaid.running -= left
            self._pay(prepaid, -left)

    def _pay(self, prepaid: Prepaid, count: int) -> None:
        self._spent_requests += count
        self._spent_tokens += count * prepaid.tokens
        self._spent_budget += count * prepaid.budget

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
        self.running -= 1
        if self.leaving > 0:
            self.leaving -= 1
            self._places -= 1
            self.peak = min(self.peak, self._places)
            self._returned.append((0.0, Amounts(parallel=1.0)))
        if not self.is_active:
            self._activate()

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
            self._looked_at, self.peak = now, min(self.running, self._places)
            self._low_places = self._places if self._places < limits.max_parallel else inf
        if granted.requests or granted.tokens or granted.budget:
            marks = (self._granted_requests, self._granted_tokens, self._granted_budget)
            self._lots.append(Lot(allowance.slot, now + allowance.valid_s, *marks))
            if len(self._lots) == 1:
                self._slot = allowance.slot
        if allowance.seq == 0 or granted != NOTHING:
            self._refusals.forget()
        if granted != NOTHING:
            self._activate()
        if allowance.requests is not None:
            self._others_requests = allowance.requests.remaining
            self.resets_at = now + allowance.requests.reset_s
        if allowance.tokens is not None:
            self._others_tokens = allowance.tokens.remaining
            self.resets_at = max(self.resets_at, now + allowance.tokens.reset_s)
        if allowance.refused is not None and needs != NOTHING:
            limit, until = allowance.refused, now + max(allowance.retry_after_s, LEAST_S)
            self._refusals.add(Refusal(limit, getattr(needs, limit), until, allowance.reason))

    def report(self, now: float) -> Spent | None:
        """What is to be told since the last time, None where that is nothing. What has been here for too long is given
        back; `is_active` says whether there will be more to report."""
        self.text = None
        self.reclaim()
        for prepaid in self._paid:
            if prepaid.ended:
                self.settle(prepaid.slot, *prepaid.settled())
        self._paid = [prepaid for prepaid in self._paid if prepaid.running]
        while self._lots and self._lots[0].ends <= now:
            self._end_lot(self._lots.popleft())
        if self.place:
            self._return_places(now)
        spent = Amounts(
            requests=self._spent_requests - self._told_requests if self._granted_requests < inf else 0.0,
            tokens=self._spent_tokens - self._told_tokens if self._granted_tokens < inf else 0.0,
            parallel=self.running - self._told_running,
            budget=self._spent_budget - self._told_budget if self._granted_budget < inf else 0.0,
        )
        self._told_requests, self._told_tokens = self._spent_requests, self._spent_tokens
        self._told_budget, self._told_running = self._spent_budget, self.running
        returned, self._returned = tuple(self._returned), []
        settled, self._settled = self._settled, {}
        self.is_active = bool(self._lots or self._paid) or self.running > 0 or 0 < self._places < inf
        if spent == NOTHING and not returned and not settled:
            return None
        if any(requests < 0 or tokens < 0 for requests, tokens, _ in settled.values()):
            self._refusals.forget()  # once this is told there may be enough
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
        self.reclaim()
        while self._lots:
            self._end_lot(self._lots.popleft())
        if self.place and self._places > 0:
            self._returned.append((0.0, Amounts(parallel=self._places - min(self._places, self.running))))
            self._places = self.peak = min(self._places, self.running)
        self._activate()

    def _activate(self) -> None:
        if not self.is_active:
            self.is_active = True
            self._changed()

    def _end_lot(self, lot: Lot) -> None:
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
        spare = self._places - self.peak
        if spare > 0:
            self._places -= spare
            self._low_places = self._places
            self._returned.append((0.0, Amounts(parallel=spare)))
        self._looked_at, self.peak = now, min(self.running, self._places)
