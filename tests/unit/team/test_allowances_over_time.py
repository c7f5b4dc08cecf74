"""Several gateways and one key over minutes, by a clock that the test moves: whatever happens to the store, no more is
let through within any minute than the limit and a slice of each gateway."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from app.ipc import NOTHING, Allowance, AllowanceWanted, Amounts, Spent
from app.store.database import Statements, StoreDown
from app.supervisor.team.limits.allowances import TeamAllowances
from app.table import Budget, Key, KeyLimits
from tests.rigs.clocked_store import Clock, ClockedDatabase, ClockedStore
from tests.rigs.slow_client import until

RPM, TPM = 600, 60_000
STEP_S = 0.05
RESERVED, USED = 600.0, 150.0
SLICE, TOKEN_SLICE = RPM / 60, TPM / 60


@dataclass
class Lot:
    slot: float
    ends: float
    requests: float
    tokens: float


@dataclass
class FakeRelay:
    """What a relay does with one key: spends, asks, reports, gives back, remembers refusals."""

    number: int
    allowances: TeamAllowances
    clock: Clock
    key: Key
    lots: deque[Lot] = field(default_factory=deque)
    asked: AllowanceWanted | None = None
    refused_until: float = 0.0
    spent: Amounts = NOTHING
    settled: list[tuple[float, Amounts]] = field(default_factory=list)
    running: deque[tuple[float, float]] = field(default_factory=deque)  # when it ends, its slot
    admitted: list[float] = field(default_factory=list)
    refusals: list[Allowance] = field(default_factory=list)
    unanswered: int = 0

    @property
    def needs(self) -> tuple[float, float]:
        limits = self.key.limits or KeyLimits()
        return float(limits.rpm is not None), RESERVED if limits.tpm is not None else 0.0

    def arrive(self, count: int) -> None:
        now = self.clock()
        for _ in range(count):
            if not self._take(now) and now >= self.refused_until and self.asked is None:
                self._report()
                need = Amounts(*self.needs)
                self.asked = AllowanceWanted(len(self.admitted) + len(self.refusals) + 1, self.key.id, need, need)
                self.allowances.wanted(self.number, self.asked, self.hear)

    def _take(self, now: float) -> bool:
        while self.lots and self.lots[0].ends <= now:
            lot = self.lots.popleft()
            back = ((lot.slot, Amounts(lot.requests, lot.tokens)),)
            self.allowances.spent(self.number, Spent(self.key.id, returned=back))
        need_requests, need_tokens = self.needs
        if not self.lots or sum(lot.requests for lot in self.lots) < need_requests:
            return False
        if sum(lot.tokens for lot in self.lots) < need_tokens:
            return False
        slot = self.lots[0].slot
        for lot in self.lots:
            from_requests, from_tokens = min(lot.requests, need_requests), min(lot.tokens, need_tokens)
            lot.requests, need_requests = lot.requests - from_requests, need_requests - from_requests
            lot.tokens, need_tokens = lot.tokens - from_tokens, need_tokens - from_tokens
        requests, tokens = self.needs
        self.spent = Amounts(self.spent.requests + requests, self.spent.tokens + tokens)
        self.admitted.append(now)
        self.running.append((now + 0.3, slot))
        return True

    def hear(self, reply: Allowance) -> None:
        if reply.seq == 0:  # unasked: what was refused may be asked for again
            self.refused_until = 0.0
            return
        assert self.asked is not None
        assert reply.seq == self.asked.seq
        self.asked = None
        now = self.clock()
        if reply.granted != NOTHING:
            granted = reply.granted
            self.lots.append(Lot(reply.slot, now + reply.valid_s, granted.requests, granted.tokens))
        elif reply.refused is not None:
            self.refused_until = now + reply.retry_after_s
            self.refusals.append(reply)

    def step(self) -> None:
        now = self.clock()
        while self.running and self.running[0][0] <= now:
            _, slot = self.running.popleft()
            self.settled.append((slot, Amounts(0, USED - RESERVED)))
        self._report()

    def _report(self) -> None:
        if self.spent != NOTHING or self.settled:
            self.allowances.spent(self.number, Spent(self.key.id, self.spent, (), tuple(self.settled)))
            self.spent, self.settled = NOTHING, []


@dataclass
class Team:
    clock: Clock
    database: ClockedDatabase
    stores: list[ClockedStore]
    allowances: list[TeamAllowances]
    relays: list[FakeRelay]
    dice: random.Random = field(default_factory=lambda: random.Random(1))

    async def go(self, seconds: float, each_step: int) -> None:
        for _ in range(int(seconds / STEP_S)):
            self.clock.now += STEP_S
            for relay in self.dice.sample(self.relays, len(self.relays)):
                relay.arrive(each_step)
            for allowances in self.allowances:
                await allowances.look()
            for relay in self.relays:
                relay.step()

    def admitted(self) -> list[float]:
        return sorted(at for relay in self.relays for at in relay.admitted)

    def most_in_a_minute(self) -> int:
        times, first, most = self.admitted(), 0, 0
        for index, at in enumerate(times):
            while at - times[first] >= 60:
                first += 1
            most = max(most, index - first + 1)
        return most

    def fail(self, *, is_up: bool, of: range | None = None) -> None:
        for index in of or range(len(self.stores)):
            self.stores[index].is_up = is_up


def teamed(gateways: int, limits: KeyLimits, *, is_shared: bool = True, relays_each: int = 1) -> Team:
    clock = Clock()
    database = ClockedDatabase(clock)
    stores = [ClockedStore(database, f"g{number}", is_shared) for number in range(gateways)]
    key = Key("a", "", id="a", limits=limits)
    allowances, relays = [], []
    for store in stores:
        store.sign_on()
        allowances.append(TeamAllowances(store, clock=clock))
        allowances[-1].follow((key,))
        relays += [FakeRelay(number, allowances[-1], clock, key) for number in range(relays_each)]
    return Team(clock, database, stores, allowances, relays)


BOTH = KeyLimits(rpm=RPM, tpm=TPM)
REQUESTS = KeyLimits(rpm=RPM)


@pytest.fixture(params=[1, 3])
async def team(request: pytest.FixtureRequest) -> AsyncIterator[Team]:
    team = teamed(request.param, REQUESTS)
    yield team
    team.database.close()


async def test_ten_times_the_load_is_let_through_up_to_the_limit_and_not_much_less(team: Team) -> None:
    await team.go(180, 10)

    assert team.most_in_a_minute() <= RPM + SLICE * len(team.relays)
    assert len(team.admitted()) >= 3 * RPM * 0.9


async def test_tokens_that_were_not_used_are_there_again() -> None:
    team = teamed(3, KeyLimits(tpm=TPM))
    await team.go(120, 5)

    assert len(team.admitted()) * USED >= 2 * TPM * 0.8
    assert team.most_in_a_minute() * USED <= TPM + 3 * TOKEN_SLICE + 30 * RESERVED


async def test_without_the_store_each_gateway_has_its_share(team: Team) -> None:
    await team.go(90, 10)
    team.fail(is_up=False)
    before = len(team.admitted())
    await team.go(180, 10)

    assert team.most_in_a_minute() <= RPM + SLICE * len(team.relays)
    assert len(team.admitted()) - before >= 3 * RPM * 0.85


async def test_the_store_comes_back_and_hears_what_was_spent_without_it(team: Team) -> None:
    await team.go(70, 10)
    team.fail(is_up=False)
    await team.go(40, 10)
    team.fail(is_up=True)
    await team.go(70, 10)

    assert team.most_in_a_minute() <= RPM + SLICE * len(team.relays)
    assert not any(account.is_beyond for each in team.allowances for account in each.accounts.values())


async def test_for_one_that_is_cut_off_its_share_is_kept_and_no_more() -> None:
    team = teamed(3, REQUESTS)
    await team.go(70, 10)
    team.fail(is_up=False, of=range(1))
    before = [len(relay.admitted) for relay in team.relays]
    await team.go(120, 10)
    alone, *others = (len(relay.admitted) - count for relay, count in zip(team.relays, before, strict=True))

    assert team.most_in_a_minute() <= RPM + SLICE * 3
    assert alone >= 2 * RPM / 3 * 0.85
    assert sum(others) >= 2 * RPM * 2 / 3 * 0.85


@pytest.mark.parametrize("seed", range(5))
async def test_a_store_that_fails_at_random_lets_no_more_through(seed: int) -> None:
    dice = random.Random(seed)
    team = teamed(3, BOTH)
    await team.go(20, 10)
    for _ in range(12):
        of = dice.choice([None, None, range(1), range(1, 3)])
        team.fail(is_up=False, of=of)
        await team.go(dice.uniform(0.2, 25), 3)
        team.fail(is_up=True, of=of)
        await team.go(dice.uniform(0.2, 15), 3)

    assert team.most_in_a_minute() <= RPM + SLICE * 3
    assert sum(1 for relay in team.relays if relay.asked is not None) == 0


@pytest.mark.parametrize("seed", range(3))
async def test_commits_of_which_nobody_knows_whether_they_happened_let_no_more_through(seed: int) -> None:
    dice = random.Random(seed)
    team = teamed(3, BOTH)
    team.database.fails = lambda _gateway: dice.choice([None, None, None, "before", "after"])
    await team.go(150, 5)

    assert team.most_in_a_minute() <= RPM + SLICE * 3


@pytest.mark.parametrize("is_shared", [True, False])
async def test_several_relays_of_a_gateway_share_what_it_has(is_shared: bool) -> None:
    team = teamed(2 if is_shared else 1, BOTH, is_shared=is_shared, relays_each=3)
    await team.go(130, 4)

    assert team.most_in_a_minute() <= RPM + SLICE * 2
    assert min(len(relay.admitted) for relay in team.relays) > 20
    assert len(team.admitted()) * USED >= 2 * TPM * 0.85


async def test_a_relay_that_dies_takes_what_it_had_with_it_and_no_more() -> None:
    team = teamed(1, REQUESTS)
    await team.go(2, 3)
    had = sum(lot.requests for lot in team.relays[0].lots)
    before = len(team.admitted())
    team.allowances[0].left(1)
    team.relays[0].lots.clear()
    team.relays[0].spent = NOTHING
    await team.go(50, 10)

    assert RPM - before - had - SLICE <= len(team.admitted()) - before <= RPM - before


async def test_a_store_that_answers_too_slowly_at_the_start_is_asked_again_in_a_second() -> None:
    team = teamed(1, REQUESTS)
    team.relays[0].arrive(1)
    async with team.database.transaction("somebody else"):
        agreeing = asyncio.create_task(team.allowances[0].look())
        await until(lambda: bool(team.relays[0].refusals))
    await agreeing

    assert team.relays[0].refusals[0].retry_after_s == 1.0
    assert "did not answer in time" in team.relays[0].refusals[0].reason


async def test_who_asks_while_gateways_agree_is_not_told_that_there_is_no_more() -> None:
    team = teamed(2, REQUESTS)
    allowances, replies = team.allowances[0], list[Allowance]()
    first, late = (AllowanceWanted(seq, "a", Amounts(1), NOTHING) for seq in (1, 2))
    async with team.database.transaction("somebody else"):
        allowances.wanted(1, first, replies.append)
        agreeing = asyncio.create_task(allowances.look())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        allowances.wanted(2, late, replies.append)
    await agreeing
    await allowances.look()

    assert [(reply.seq, reply.refused, reply.granted.requests >= 1) for reply in replies] == [
        (1, None, True),
        (2, None, True),
    ]


async def test_what_was_refused_without_the_store_is_taken_back_once_it_is_heard() -> None:
    team = teamed(1, REQUESTS)
    replies: list[Allowance] = []
    async with team.database.transaction("somebody else"):
        team.allowances[0].wanted(1, AllowanceWanted(1, "a", Amounts(1), NOTHING), replies.append)
        agreeing = asyncio.create_task(team.allowances[0].look())
        await until(lambda: bool(replies))
    await agreeing

    assert [(reply.seq, reply.refused) for reply in replies] == [(1, "requests"), (0, None)]


async def test_limits_that_change_hold_for_what_is_asked_next() -> None:
    team = teamed(1, REQUESTS, is_shared=False)
    await team.go(2, 30)
    assert len(team.admitted()) == RPM
    raised = Key("a", "", id="a", limits=KeyLimits(rpm=2 * RPM))
    team.allowances[0].follow((raised,))
    team.relays[0].refused_until = 0.0
    await team.go(2, 30)
    assert len(team.admitted()) == 2 * RPM
    team.allowances[0].follow(())
    replies: list[Allowance] = []
    team.allowances[0].wanted(1, AllowanceWanted(1, "a", Amounts(1), NOTHING), replies.append)

    assert [reply.granted.requests for reply in replies] == [1]


async def test_a_refusal_says_when_there_is_enough_and_then_there_is() -> None:
    team = teamed(1, REQUESTS)
    await team.go(3, 40)
    team.relays[0].arrive(1)
    await team.allowances[0].look()
    refusal = team.relays[0].refusals[-1]
    assert refusal.refused == "requests"
    before = len(team.admitted())

    team.clock.now += refusal.retry_after_s
    team.relays[0].arrive(1)
    await team.allowances[0].look()
    team.relays[0].arrive(1)

    assert len(team.admitted()) == before + 1
    assert 50 < refusal.retry_after_s < 61


async def test_a_gateway_that_starts_without_the_store_and_knows_nobody_refuses() -> None:
    team = teamed(1, REQUESTS)
    team.fail(is_up=False)
    await team.go(100, 1)

    assert team.admitted() == []
    assert "not known how many" in team.relays[0].refusals[-1].reason


async def test_one_that_knows_how_many_there_are_has_its_share_when_a_minute_is_over() -> None:
    team = teamed(1, REQUESTS)
    team.stores[0].known = 3
    team.fail(is_up=False)
    await team.go(59, 1)
    assert team.admitted() == []
    await team.go(60, 10)

    assert 150 <= len(team.admitted()) <= 200


async def test_a_gateway_that_has_the_store_to_itself_does_not_wait_for_it() -> None:
    team = teamed(1, REQUESTS, is_shared=False)
    await team.go(1, 0)
    team.fail(is_up=False)
    team.relays[0].arrive(600)
    for _ in range(400):
        team.relays[0].arrive(600)

    assert len(team.admitted()) == RPM


async def test_what_was_spent_before_a_restart_counts_after_it() -> None:
    team = teamed(1, REQUESTS, is_shared=False)
    await team.go(2, 20)
    spent = len(team.admitted())
    assert spent > 500
    fresh = TeamAllowances(team.stores[0], clock=team.clock)
    fresh.follow((team.relays[0].key,))
    team.relays[0] = FakeRelay(1, fresh, team.clock, team.relays[0].key)
    team.allowances[0] = fresh
    await team.go(30, 20)

    assert len(team.relays[0].admitted) <= RPM - spent


async def test_a_gateway_that_ends_leaves_what_it_held_to_the_others() -> None:
    team = teamed(2, KeyLimits(max_parallel=4))
    wants = AllowanceWanted(1, "a", Amounts(parallel=3), NOTHING)
    replies: list[Allowance] = []
    team.allowances[0].wanted(1, wants, replies.append)
    await team.allowances[0].look()
    team.allowances[1].wanted(1, wants, replies.append)
    await team.allowances[1].look()
    assert [reply.refused for reply in replies] == [None, "parallel"]

    await team.allowances[0].aclose()
    team.clock.now += 1
    team.allowances[1].wanted(1, wants, replies.append)
    await team.allowances[1].look()

    assert replies[-1].refused is None


@pytest.mark.parametrize("gateways", [1, 2])
async def test_a_clock_of_the_store_that_is_set_back_keeps_nobody_waiting_for_longer_than_a_minute(
    gateways: int,
) -> None:
    team = teamed(gateways, KeyLimits(rpm=60))
    steady = Clock()
    for relay in team.relays:
        relay.clock = steady
    for allowances in team.allowances:
        allowances._clock = allowances._sync._clock = steady
    for step in range(1500):
        if step == 600:
            team.clock.now -= 3600
        steady.now += 0.1
        team.clock.now += 0.1
        for relay in team.relays:
            relay.arrive(1)
        for allowances in team.allowances:
            await allowances.look()
        for relay in team.relays:
            relay.step()
    team.database.close()

    after = [at for at in team.admitted() if at > 1_700_000_000 + 61]
    assert 50 <= len(after) <= 65
    assert all(refusal.retry_after_s <= 125 for relay in team.relays for refusal in relay.refusals)


async def test_a_gateway_whose_name_another_one_has_tells_what_it_holds_under_its_new_one() -> None:
    team = teamed(2, KeyLimits(max_parallel=4))
    first, second = team.allowances
    said: list[Allowance] = []
    need = Amounts(parallel=1)
    for seq in (1, 2, 3):
        first.wanted(1, AllowanceWanted(seq, "a", need, need), said.append)
        await first.look()
    for _ in range(100):
        team.clock.now += 0.1
        await first.look()
        await second.look()

    team.stores[0].id = "g9"
    team.stores[0].sign_on()
    team.database.run("UPDATE limit_amounts SET amount = 0 WHERE gateway = 'g0'")
    for _ in range(20):
        team.clock.now += 0.1
        await first.look()
        await second.look()
    held = team.database.run("SELECT amount FROM limit_amounts WHERE gateway = 'g9' AND slot = -1")
    team.database.close()

    assert [answer.granted.parallel for answer in said] == [1, 1, 1]
    assert [row["amount"] for row in held] == [3]


async def test_of_many_keys_of_which_nothing_is_known_yet_those_that_are_asked_for_come_first() -> None:
    team = teamed(1, REQUESTS)
    allowances = team.allowances[0]
    allowances.follow(tuple(Key(f"k{number}", "", id=f"k{number}", limits=REQUESTS) for number in range(500)))
    said: list[tuple[float, int]] = []
    need = Amounts(requests=1)

    def known() -> int:
        return sum(account.is_known for account in allowances.accounts.values())

    looking = asyncio.create_task(allowances.look())
    while not known():  # noqa: ASYNC110  # the look goes on meanwhile
        await asyncio.sleep(0)
    for seq in range(1, 500, 100):
        if not allowances.accounts[f"k{seq}"].is_known:
            asked = AllowanceWanted(seq, f"k{seq}", need, need)
            allowances.wanted(1, asked, lambda reply: said.append((reply.granted.requests, known())))
    await looking
    team.database.close()

    assert len(said) >= 3
    assert all(granted == 1 and of <= 150 for granted, of in said)


@pytest.mark.parametrize(("comes_through", "at_most"), [(True, 4), (False, 6)])
async def test_what_all_keys_have_spent_is_read_the_more_seldom_the_longer_that_takes(
    comes_through: bool, at_most: int
) -> None:
    team = teamed(1, KeyLimits(budget=Budget(1e6, "tokens", "day")))
    of_all: list[float] = []

    async def recorded(
        _statements: Statements, _since: float, keys: Sequence[str] | None
    ) -> dict[str, tuple[float, float]]:
        if keys is None:
            of_all.append(team.clock.now)
            team.clock.now += 0.5
            if not comes_through:
                raise StoreDown("it took too long")
        return {}

    allowances = TeamAllowances(team.stores[0], recorded=recorded, clock=team.clock)
    allowances.follow((team.relays[0].key,))
    said: list[Allowance] = []
    for seq in range(1, 601):
        team.clock.now += 0.05
        need = Amounts(budget=100)
        allowances.wanted(1, AllowanceWanted(seq, "a", need, need), said.append)
        await allowances.look()
        allowances.spent(1, Spent("a", need))
    team.database.close()

    assert 2 <= len(of_all) <= at_most
    assert sum(each.granted.budget >= 100 for each in said) > 500
