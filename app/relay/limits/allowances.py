"""What this relay may spend of all keys' limits: asked for, waited for, and told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import msgspec

from app.ipc import NOTHING, Allowance, AllowanceWanted, Amounts, Spent
from app.relay.limits import limit_headers, refusals
from app.relay.limits.key_allowance import KeyAllowance
from app.relay.limits.prepaid import small_like
from app.relay.limits.reservation import Reservation
from app.relay.planning.plan import RequestPlan
from app.relay.planning.token_estimate import BYTES_PER_TOKEN, TokenEstimate, estimate
from app.table import Key, Limits, Table
from backends.http.carrying import in_task

# How often what was spent is told.
TELL_S: Final = 0.2
# The supervisor answers out of its memory. A request waits so long for one that does not.
WAIT_S: Final = 2.0
# So many replies that say nothing are too many.
MOST_EMPTY: Final = 3
# After a reply that granted nothing ahead of need, so long nothing is asked for ahead of need.
PAUSE_S: Final = 0.25

# What the configuration calls them.
_NAMES: Final = {"requests": "rpm", "tokens": "tpm", "parallel": "max_parallel", "budget": "budget"}
_NO_KEY: Final = Key("", "")
# Messages that are sent at once.
Send: TypeAlias = Callable[..., None]


def cost(is_money: bool, plan: RequestPlan, estimated: TokenEstimate) -> float:
    """What such a request takes of a budget of money, or of tokens."""
    prompt, answer, _ = estimated
    if not is_money:
        return prompt + answer
    price = plan.resolved.model.price
    return 0.0 if price is None else (prompt * price.input + answer * price.output) / 1e6


class _Line:
    """One key's allowance, and the requests that wait for more of it, with what each needs.

    `seq`: of what is asked for, 0: nothing is; `needs`: of that. `empty`: replies in a row that neither granted nor
    refused. `openai` and `anthropic` make the header lines of an answer.
    """

    __slots__ = ("allowance", "anthropic", "empty", "needs", "not_before", "openai", "seq", "waiting")

    def __init__(self, key: Key, activated: Callable[[_Line], None], lines: Callable[..., bytes]) -> None:
        self.allowance = allowance = KeyAllowance(key, lambda: activated(self))
        self.waiting: dict[asyncio.Future[None], Amounts] = {}
        self.seq = 0
        self.needs = NOTHING
        self.empty = 0
        self.not_before = 0.0
        self.openai = partial(lines, allowance)
        self.anthropic = partial(lines, allowance, is_anthropic=True)

    def __repr__(self) -> str:
        return f"<_Line {self.allowance!r} waiting={len(self.waiting)}>"

    def wake(self) -> None:
        """Have all that wait look again, in the order in which they came."""
        for future in self.waiting:
            if not future.done():
                future.set_result(None)

    def wants(self) -> Amounts:
        """What all that wait need together."""
        needs = self.waiting.values()
        return Amounts(*(sum(each) for each in zip(*map(msgspec.structs.astuple, needs), strict=True)))


class Allowances:
    """One relay's. `send`: to the supervisor; `table`: the current one; `limited`: is told the key's name and the limit
    (as the configuration calls it) of each refusal; `clock`: monotonic.
    """

    def __init__(
        self,
        send: Send,
        table: Callable[[], Table],
        limited: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._table = table
        self._limited = limited
        self._clock = clock
        self._of: dict[str, _Line] = {}
        self._active: set[_Line] = set()
        self._tick: asyncio.TimerHandle | None = None
        self._seq = 0
        self._assumed, self._is_recorded = Limits().assumed_output_tokens, False

    def __repr__(self) -> str:
        return f"<Allowances keys={len(self._of)} active={len(self._active)}>"

    # -- for requests

    def take(self, key: Key, plan: RequestPlan) -> Reservation | None:
        """Spend what the request needs of its key's limits; None where that is not at hand (`wait` then). Problem (429)
        for a request that is larger than a whole limit. With one that is small, others like it are paid for.
        """
        line = self._of.get(key.id or key.name)
        if line is None:
            line = self._begin(key)
        elif line.waiting:
            return None
        allowance = line.allowance
        now = self._clock()
        if allowance.counts_tokens:
            estimated = estimate(plan, self._assumed)
            tokens: float = estimated[0] + estimated[1]
            budget = 0.0
            if allowance.counts_money:  # as `cost`, without a call
                price = plan.resolved.model.price
                if price is not None:
                    budget = (estimated[0] * price.input + estimated[1] * price.output) / 1e6
            elif allowance.has_budget:
                budget = tokens
            if tokens > allowance.most_tokens or budget > allowance.most_budget:
                tokens, budget = self._size(allowance, plan, estimated)
            reservation = allowance.take(now, tokens, budget, self._assumed)
        else:
            reservation = allowance.take(now)
        if reservation is not None:
            if allowance.is_low and line.seq == 0 and now >= line.not_before:
                self._ask(line, NOTHING)
            elif allowance.may_prepay(reservation.tokens):
                self._prepay(allowance, plan)
        return reservation

    def _prepay(self, allowance: KeyAllowance, plan: RequestPlan) -> None:
        """Pay ahead for others like this one. Where no records say what a budget was spent on, what is set aside counts
        for the rest of its period: there each sets aside its own."""
        if allowance.has_budget and not self._is_recorded:
            return
        small = small_like(plan, self._assumed)
        if small is None:
            return
        estimated = (small.most_bytes // BYTES_PER_TOKEN, small.most_answer, False)
        budget = cost(allowance.counts_money, plan, estimated) if allowance.has_budget else 0.0
        allowance.prepay(small, budget, self._assumed)

    async def wait(self, key: Key, plan: RequestPlan) -> Reservation:
        """The same where `take` has nothing: asks the supervisor, and waits for its reply together with the key's other
        requests. Problem (429) where the key has no more; one that is known already is raised at once.
        """
        line = self._of[key.id or key.name]
        allowance = line.allowance
        limits, (tokens, budget) = allowance.limits, self._sizes(allowance, plan)
        needs = allowance.needs(tokens, budget)
        self._refuse_known(allowance, needs)
        await in_task()
        until = asyncio.get_running_loop().time() + WAIT_S
        lacks = allowance.lacks(needs)
        is_here = lacks == NOTHING and line.seq == 0  # those before it have been woken, and not looked yet
        while line.empty < MOST_EMPTY:
            if not is_here:
                await self._reply(line, lacks, until)
            is_here = False
            if allowance.limits is not limits:  # they have changed meanwhile
                limits, (tokens, budget) = allowance.limits, self._sizes(allowance, plan)
            now = self._clock()
            reservation = allowance.take(now, tokens, budget, self._assumed)
            if reservation is not None:
                return reservation
            needs = allowance.needs(tokens, budget)
            self._refuse_known(allowance, needs)
            lacks = allowance.lacks(needs)
        line.empty = 0
        raise refusals.unknown()

    def _refuse_known(self, allowance: KeyAllowance, needs: Amounts) -> None:
        now = self._clock()
        refusal = allowance.refusal(needs, now)
        if refusal is not None:
            self._limited(allowance.name, _NAMES[refusal.limit])
            raise refusals.refused(allowance.name, allowance.limits, refusal, now, time.time())

    async def _reply(self, line: _Line, needs: Amounts, until: float) -> None:
        """Wait for what is asked for; ask where nothing is."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting[future] = needs
        line.allowance.reclaim()  # nobody overtakes those that wait
        if line.seq == 0:
            self._ask(line, needs)
        try:
            async with asyncio.timeout_at(until):
                await future
        except TimeoutError as exc:
            line.seq = 0  # the next request asks anew
            raise refusals.unknown() from exc
        finally:
            del line.waiting[future]

    def _sizes(self, allowance: KeyAllowance, plan: RequestPlan) -> tuple[float, float]:
        """Tokens, and what counts against the budget."""
        return self._size(allowance, plan, estimate(plan, self._assumed)) if allowance.counts_tokens else (0.0, 0.0)

    def _size(self, allowance: KeyAllowance, plan: RequestPlan, estimated: TokenEstimate) -> tuple[float, float]:
        """Tokens, and what counts against the budget. An answer whose length nobody bounds is never what makes a
        request larger than a limit; nor is a bound beyond what the model's context leaves."""
        limits = allowance.limits
        prompt, answer, is_assumed = estimated
        tpm, budget = limits.tpm, limits.budget
        if tpm is not None and prompt + answer > tpm:
            answer = self._possible(plan, prompt, answer)
            if is_assumed:
                answer = max(0, min(answer, tpm - prompt))
            if prompt + answer > tpm:
                self._limited(allowance.name, "tpm")
                raise refusals.too_many_tokens(allowance.name, tpm, prompt + answer)
        if budget is None:
            return prompt + answer, 0.0
        amount = cost(allowance.counts_money, plan, (prompt, answer, is_assumed))
        if amount > budget.amount:
            answer = self._possible(plan, prompt, answer)
            amount = cost(allowance.counts_money, plan, (prompt, answer, is_assumed))
        if amount > budget.amount:
            if not is_assumed:
                self._limited(allowance.name, "budget")
                raise refusals.larger_than_budget(allowance.name, budget, amount)
            amount = budget.amount
        return prompt + answer, amount

    def _possible(self, plan: RequestPlan, prompt: int, answer: int) -> int:
        """The most that may be answered: what the longest context of the model's targets leaves, where that is known of
        all."""
        table = self._table()
        lengths: list[int] = []
        for target in plan.resolved.model.targets:
            row = table.backends.get(target.backend)
            facts = row.fact(target.model) if row is not None else None
            if facts is None or facts.context_length is None:
                return answer
            lengths.append(facts.context_length)
        return min(answer, max(0, max(lengths, default=answer) - prompt) * plan.choices)

    # -- for answers

    def of(self, key: Key, *, is_anthropic: bool) -> tuple[KeyAllowance, Callable[[], bytes]]:
        """This key's, and what makes the header lines of an answer to it, at the time of the answer."""
        line = self._of.get(key.id or key.name) or self._begin(key)
        return line.allowance, line.anthropic if is_anthropic else line.openai

    def _lines(self, allowance: KeyAllowance, *, is_anthropic: bool = False) -> bytes:
        if is_anthropic:
            return limit_headers.anthropic(*allowance.now(self._clock()), time.time())
        text = allowance.text
        if text is None:
            text = limit_headers.openai(*allowance.now(self._clock()))
            if allowance.is_active:  # else no report comes after which it is made anew, and it would say the same later
                allowance.text = text
        return text

    # -- for the supervisor

    def follow(self, table: Table) -> None:
        """The keys as they are from now on. What was drawn for one that is gone, or has other limits, is given back."""
        self._assumed, self._is_recorded = table.limits.assumed_output_tokens, table.keeps_usage
        keys = {key.id or key.name: key for key in table.keys if key.limits is not None}
        for number, line in list(self._of.items()):
            key = keys.get(number)
            self._tell(line.allowance)
            if key is None:
                line.allowance.follow(msgspec.structs.replace(_NO_KEY, id=number, name=line.allowance.name))
                del self._of[number]
                line.wake()
            elif line.allowance.follow(key):
                line.wake()

    def granted(self, reply: Allowance) -> None:
        """What the supervisor grants, or why it does not."""
        line = self._of.get(reply.key)
        if line is None:
            self._send(Spent(reply.key, returned=((reply.slot, reply.granted),)))
            return
        now = self._clock()
        needs = line.needs
        if reply.seq == line.seq:
            line.seq, line.needs = 0, NOTHING
        else:
            needs = NOTHING  # it comes unasked, or nobody waits for it any more
        line.allowance.add(reply, needs, now)
        is_empty = reply.granted == NOTHING
        line.empty = line.empty + 1 if is_empty and reply.refused is None and needs != NOTHING else 0
        if is_empty and needs == NOTHING:
            line.not_before = now + max(PAUSE_S, reply.retry_after_s)
        if line.seq == 0 or not is_empty:
            line.wake()

    def aclose(self) -> None:
        """Tell what was spent, and give back what was not."""
        for line in self._of.values():
            line.allowance.give_back()
        self._tell_all()
        if self._tick is not None:
            self._tick.cancel()

    # -- within

    def _begin(self, key: Key) -> _Line:
        line = self._of[key.id or key.name] = _Line(key, self._activated, self._lines)
        return line

    def _ask(self, line: _Line, needs: Amounts) -> None:
        self._tell(line.allowance)  # first: what is told makes room
        self._seq += 1
        line.seq, line.needs = self._seq, needs
        wants = line.wants() if line.waiting else NOTHING
        self._send(AllowanceWanted(self._seq, line.allowance.id, needs, wants))

    def _activated(self, line: _Line) -> None:
        self._active.add(line)
        if self._tick is None:
            self._tick = asyncio.get_running_loop().call_later(TELL_S, self._tell_all)

    def _tell(self, *allowances: KeyAllowance) -> None:
        now = self._clock()
        spent = [told for each in allowances if (told := each.report(now)) is not None]
        if spent:
            self._send(*spent)

    def _tell_all(self) -> None:
        self._tell(*(line.allowance for line in self._active))
        self._active = {line for line in self._active if line.allowance.is_active}
        now = self._clock()
        for line in self._active:
            if line.seq == 0 and now >= line.not_before and line.allowance.is_ending(now):
                self._ask(line, NOTHING)
        self._tick = asyncio.get_running_loop().call_later(TELL_S, self._tell_all) if self._active else None
