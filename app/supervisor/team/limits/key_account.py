"""All limits of one key at this gateway, and what each relay has of them (pure)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final, Literal, TypeAlias

import msgspec

from app.ipc import NOTHING, Allowance, Amounts, LimitState, Spent
from app.supervisor.team.limits.ledger import SMALL, VALID_S, Ledger
from app.supervisor.team.limits.spans import Calendar, CountedFor, Rolling, WhileItRuns
from app.table import KeyLimits

Limited: TypeAlias = Literal["requests", "tokens", "parallel", "budget"]
LIMITED: Final[tuple[Limited, ...]] = ("requests", "tokens", "parallel", "budget")
CALLED: Final = {"requests": "rpm", "tokens": "tpm", "parallel": "max_parallel", "budget": "budget"}
# For these it takes whole ones.
_WHOLE: Final = ("requests", "parallel")
# No relay is told to ask again sooner.
LEAST_S: Final = 0.1
# So long after a request its record may still be on its way.
RECORDED_S: Final = 1.0
# When to ask again where nobody knows how many share the limits.
UNKNOWN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Others:
    """Who else spends of the same limits. `gateways`: how many there are, this one among them; None: not known.
    `silent`: those that may go on by themselves, as (id, since when); None: it is this gateway that is alone.
    """

    gateways: int | None
    silent: tuple[tuple[str, float], ...] | None = ()


@dataclass(eq=False, slots=True)
class Waiter:
    """One AllowanceWanted that has no reply yet."""

    relay: int
    seq: int
    needs: Amounts
    wants: Amounts
    reply: Callable[[Allowance], object]

    @property
    def is_urgent(self) -> bool:
        """Whether a request waits for it."""
        return self.needs != NOTHING


class KeyAccount:
    """`ledgers`: one for each limit that the key has; `relays`: what each relay has of them; `waiters`: those that want
    more of it than there was, in their order. `is_recorded`: what requests come to is found in records of usage.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.is_recorded = True
        self.ledgers: dict[Limited, Ledger] = {}
        self.relays: dict[int, dict[Limited, float]] = {}
        self.waiters: list[Waiter] = []
        self._running: dict[int, float] = {}  # by relay: budget that requests have taken which run
        self._ending: list[tuple[float, float]] = []  # and of those that are over: until when it is held, how much

    def __repr__(self) -> str:
        return f"<KeyAccount {self.key} {list(self.ledgers.values())}>"

    def follow(self, limits: KeyLimits | None, now: float) -> bool:
        """The key's limits as they are now. Whether there are new ones, of which the store has to say what is spent."""
        limits, is_new = limits or KeyLimits(), False
        budget = limits.budget
        wanted: dict[Limited, tuple[str, float, CountedFor] | None] = {
            "requests": ("requests", limits.rpm, Rolling()) if limits.rpm is not None else None,
            "tokens": ("tokens", limits.tpm, Rolling()) if limits.tpm is not None else None,
            "parallel": ("parallel", limits.max_parallel, WhileItRuns()) if limits.max_parallel is not None else None,
            "budget": (f"{budget.unit}/{budget.per}", budget.amount, Calendar(budget.per)) if budget else None,
        }
        for name, one in wanted.items():
            ledger = self.ledgers.get(name)
            if one is None or (ledger is not None and ledger.kind != one[0]):
                self.ledgers.pop(name, None)
                for had in self.relays.values():
                    had.pop(name, None)
                if name == "budget":  # what was set aside was of another one, maybe in another unit
                    self._running.clear()
                    self._ending.clear()
                ledger = None
            if one is not None and ledger is None:
                self.ledgers[name], is_new = Ledger(*one, now), True
            elif ledger is not None and one is not None:
                ledger.limit = float(one[1])
        return is_new

    # -- what relays say

    def note(self, relay: int, spent: Spent, now: float) -> None:
        """What a relay says that it has spent, will not spend, and what its requests came to."""
        had = self.relays.setdefault(relay, {})
        for name, ledger in self.ledgers.items():
            amount = getattr(spent.spent, name)
            if amount:
                amount = amount if name == "parallel" else min(amount, had.get(name, 0.0))
                ledger.spend(amount, now)
                if name != "parallel":
                    had[name] = had.get(name, 0.0) - amount
                if name == "budget":
                    self._run(relay, amount)
            for _, amounts in spent.returned:
                back = min(getattr(amounts, name), had.get(name, 0.0))
                had[name] = had.get(name, 0.0) - back
                ledger.take_back(back)
            for slot, amounts in spent.settled:
                more = getattr(amounts, name)
                if more and name == "budget":
                    self._end(-self._run(relay, more), now)
                elif more:
                    ledger.settle(int(slot), more, now)

    def _run(self, relay: int, more: float) -> float:
        """How much more budget requests that run have taken; the change."""
        before = self._running.get(relay, 0.0)
        self._running[relay] = after = max(0.0, before + more)
        return after - before

    def _end(self, amount: float, now: float) -> None:
        """Budget of requests that are over. Where nothing is recorded it counts as it was set aside."""
        ledger = self.ledgers.get("budget")
        if ledger is not None and self.is_recorded:
            self._ending.append((now + RECORDED_S, amount))
        elif ledger is not None:
            end = ledger.span.ends(ledger.span.slot(now))
            self._ending = [(end, amount + sum(each for at, each in self._ending if at == end))]

    def left(self, relay: int, now: float) -> bool:
        """That relay is gone. What it had counts as spent, since it may have been; what ran there runs no more. Whether
        it had anything to do with this key.
        """
        had = self.relays.pop(relay, None)
        for name, amount in (had or {}).items():
            ledger = self.ledgers[name]
            if name == "parallel":
                ledger.take_back(amount)
            else:
                ledger.spend(amount, now)
                if name == "budget":
                    self._end(amount, now)
        self._end(self._running.pop(relay, 0.0), now)
        self.waiters = [waiter for waiter in self.waiters if waiter.relay != relay]
        return had is not None

    def linger(self, unrecorded: float, now: float, *, is_recorded: bool) -> None:
        """Hold the budget of requests that run, of those that are over and whose records are on their way, and what of
        it is in records that the store does not have yet (`unrecorded`). Only with what is recorded heard just now
        (`is_recorded`) may it become less.
        """
        ledger = self.ledgers.get("budget")
        if ledger is None:
            self._ending.clear()
            return
        if is_recorded:
            # Later ends are from before the clock was set back.
            latest = now + RECORDED_S if self.is_recorded else inf
            self._ending = [each for each in self._ending if now < each[0] <= latest]
        amount = sum(self._running.values()) + sum(amount for _, amount in self._ending) + unrecorded
        ledger.linger(amount if is_recorded else max(amount, ledger.lingering))

    def has_ended(self, now: float) -> bool:
        """Whether records have come in by now of which the store has not been asked."""
        return any(end <= now for end, _ in self._ending)

    # -- replies

    def grant(self, waiter: Waiter, now: float) -> Allowance | None:
        """Give a relay what it needs, and its part of what is there besides; None where there is not as much."""
        needs = waiter.needs
        if any(ledger.pool + SMALL < getattr(needs, name) for name, ledger in self.ledgers.items()):
            return None
        had = self.relays.setdefault(waiter.relay, {})
        relays = len(self.relays)
        granted: dict[str, float] = {}
        for name, ledger in self.ledgers.items():
            need = getattr(needs, name)
            more = max(0.0, ledger.pool - need)
            more = max(more / relays, min(more, getattr(waiter.wants, name) - need))
            granted[name] = need + (float(int(more + SMALL)) if name in _WHOLE else more)
            ledger.hand_out(granted[name])
            had[name] = had.get(name, 0.0) + granted[name]
        return self._said(Allowance(waiter.seq, self.key, Amounts(**granted), VALID_S, float(Rolling().slot(now))), now)

    def extend(self, waiter: Waiter, now: float, gateways: int) -> None:
        """Hold as much as is needed, and some more, without asking the store; as far as this gateway may by itself."""
        needs = waiter.needs
        rooms = {name: ledger.lone_room(now, gateways) for name, ledger in self.ledgers.items()}
        short = {name: max(0.0, getattr(needs, name) - ledger.pool) for name, ledger in self.ledgers.items()}
        if any(short[name] > rooms[name] + SMALL for name in rooms):
            return
        for name, ledger in self.ledgers.items():
            want = short[name] + max(0.0, min(ledger.ahead(now), (rooms[name] - short[name]) / 2))
            want = max(want, getattr(waiter.wants, name) - ledger.pool)
            if name in _WHOLE:
                want = float(math.ceil(want - SMALL))
            more = min(rooms[name], want) if ledger.pool < ledger.ahead(now) / 2 or short[name] else 0.0
            if more > SMALL:
                ledger.held += more
                ledger.is_beyond = True

    def refuse(
        self,
        waiter: Waiter,
        now: float,
        others: Others,
        earliest: float = 0.0,
        reason: str = "",
        wait_s: float | None = None,
    ) -> Allowance:
        """That there is not as much, and when there will be, as far as is known; not before `earliest`. `wait_s`: said
        instead, where that is not known."""
        refused, longest = None, 0.0
        for name in LIMITED:
            ledger = self.ledgers.get(name)
            need = getattr(waiter.needs, name)
            if ledger is None or ledger.pool + SMALL >= need:
                continue
            wait = UNKNOWN_S if wait_s is None else wait_s
            if wait_s is None and others.gateways is not None:
                wait = ledger.wait_s(need, now, others.gateways, others.silent, earliest)
            if refused is None or wait > longest:
                refused, longest = name, wait
        retry_after_s = 0.0 if longest == inf else max(LEAST_S, longest)
        said = Allowance(
            waiter.seq, self.key, refused=refused, retry_after_s=retry_after_s, reason=reason or _why(others)
        )
        return self._said(said, now)

    def _said(self, allowance: Allowance, now: float) -> Allowance:
        requests, tokens = (self._state(name, now) for name in ("requests", "tokens"))
        return msgspec.structs.replace(allowance, requests=requests, tokens=tokens)

    def _state(self, name: Limited, now: float) -> LimitState | None:
        ledger = self.ledgers.get(name)
        if ledger is None:
            return None
        left = ledger.limit - ledger.spent(now) - sum(ledger.others_held.values()) - ledger.out
        return LimitState(ledger.limit, max(0.0, left), ledger.reset_s(now))

    # -- what is agreed with the store

    def wished(self, now: float, others: Others) -> dict[Limited, float]:
        """How much this gateway should hold of each limit: what relays have, what those that wait need, in their order
        as long as all of it fits, and some more."""
        gateways = others.gateways or 1
        rooms = {name: ledger.room(now, gateways, others.silent or ()) for name, ledger in self.ledgers.items()}
        fixed = {name: ledger.out + ledger.lingering for name, ledger in self.ledgers.items()}
        needs, is_short = dict.fromkeys(self.ledgers, 0.0), False
        for waiter in self.waiters:
            left = {name: rooms[name] - fixed[name] - needs[name] for name in self.ledgers}
            need = {name: getattr(waiter.needs, name) for name in self.ledgers}
            if any(left[name] + SMALL < need[name] for name in need):
                is_short = True
                continue
            want = {name: max(need[name], getattr(waiter.wants, name)) for name in self.ledgers}
            share = min((left[name] / want[name] for name in want if want[name] > 0), default=1.0)
            is_short |= share < 1
            needs = {name: needs[name] + max(need[name], min(1.0, share) * want[name]) for name in needs}
        return {
            name: ledger.wish(now, needs[name], is_short, gateways, rooms[name])
            for name, ledger in self.ledgers.items()
        }

    def shares(self, now: float) -> list[tuple[str, float]]:
        """How much of each limit, as the configuration calls it, is used: 0 to 1."""
        return [(CALLED[name], min(1.0, ledger.used(now) / ledger.limit)) for name, ledger in self.ledgers.items()]

    # -- what there is to agree on

    @property
    def is_known(self) -> bool:
        """Whether the store has been heard of every limit."""
        return all(ledger.is_known for ledger in self.ledgers.values())

    @property
    def is_beyond(self) -> bool:
        """Whether something was granted without the store, which does not know it yet."""
        return any(ledger.is_beyond for ledger in self.ledgers.values())

    @property
    def is_untold(self) -> bool:
        """Whether the store does not know what is spent and held here as it is."""
        return any(ledger.is_untold for ledger in self.ledgers.values())

    def is_at_rest(self, now: float) -> bool:
        """Whether there is nothing to agree on, now or later, until somebody asks or spends."""
        is_open = self.waiters or self._ending or not self.is_known or self.is_untold
        return not is_open and all(ledger.ahead(now) == 0 and ledger.pool <= SMALL for ledger in self.ledgers.values())

    def is_idle(self, now: float) -> bool:
        """Whether something is held that nobody asks for."""
        return any(ledger.pool > SMALL and ledger.ahead(now) == 0 for ledger in self.ledgers.values())

    def is_low(self, now: float, others: Others) -> bool:
        """Whether some more is worth having, and to be had."""
        return any(
            ledger.pool < (ahead := ledger.ahead(now)) / 2
            and ledger.room(now, others.gateways or 1, others.silent or ()) - ledger.held > ahead / 2
            for ledger in self.ledgers.values()
        )

    def is_spent(self, needs: Amounts, now: float, others: Others) -> bool:
        """Whether there cannot be as much as is needed, by what is known."""
        gateways, silent = others.gateways or 1, others.silent or ()
        return any(
            ledger.is_spent_for(getattr(needs, name), now, gateways, silent) for name, ledger in self.ledgers.items()
        )

    def rest(self) -> None:
        """Nobody is going to ask for more."""
        for ledger in self.ledgers.values():
            ledger.rest()


def _why(others: Others) -> str:
    if others.gateways is None:
        return "The store of limits is not reachable, and it is not known how many gateways share them."
    if others.silent is None and others.gateways > 1:
        return f"The store of limits is not reachable, so this gateway has 1/{others.gateways} of them."
    return ""
