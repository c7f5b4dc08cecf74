"""Budgets: what records of usage say is spent, and what is held until they are there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from app.ipc import NOTHING, Allowance, AllowanceWanted, Amounts, Spent
from app.store.database import Statements
from app.supervisor.team.limits.allowances import TeamAllowances
from app.table import Budget, Key, KeyLimits
from tests.rigs.clocked_store import Clock, ClockedDatabase, ClockedStore

BUDGET = 1000.0
KEY = Key("a", "", id="a", limits=KeyLimits(budget=Budget(BUDGET, "tokens", "day")))


@dataclass
class Ledgers:
    """Gateways over one store, and what records say: those that are there, and each gateway's that are not."""

    clock: Clock
    database: ClockedDatabase
    stores: list[ClockedStore] = field(default_factory=list)
    gateways: list[TeamAllowances] = field(default_factory=list)
    recorded: float = 0.0
    unrecorded: float = 0.0
    seq: int = 0

    async def ask(self, gateway: int, amount: float) -> Allowance:
        replies: list[Allowance] = []
        self.seq += 1
        wanted = AllowanceWanted(self.seq, "a", Amounts(budget=amount), Amounts(budget=amount))
        self.gateways[gateway].wanted(1, wanted, replies.append)
        await self.gateways[gateway].look()
        assert len(replies) == 1
        return replies[0]

    async def spend(self, gateway: int, amount: float) -> bool:
        """One request that is over at once; whether it was let through."""
        reply = await self.ask(gateway, amount)
        if reply.granted == NOTHING:
            return False
        rest = ((reply.slot, Amounts(budget=reply.granted.budget - amount)),)
        self.gateways[gateway].spent(1, Spent("a", Amounts(budget=amount), rest))
        self.gateways[gateway].spent(1, Spent("a", settled=((reply.slot, Amounts(budget=-amount)),)))
        return True

    async def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.2)):
            self.clock.now += 0.2
            for gateway in self.gateways:
                await gateway.look()


@pytest.fixture(params=[1, 2])
async def team(request: pytest.FixtureRequest) -> AsyncIterator[Ledgers]:
    clock = Clock()
    team = Ledgers(clock, ClockedDatabase(clock))

    async def recorded(
        _statements: Statements, _since: float, _keys: Sequence[str] | None
    ) -> Mapping[str, tuple[float, float]]:
        return {"a": (team.recorded, 0.0)}

    for number in range(request.param):
        store = ClockedStore(team.database, f"g{number}", is_shared=request.param > 1)
        store.sign_on()
        gateway = TeamAllowances(store, recorded=recorded, unrecorded=lambda _key, _unit: team.unrecorded, clock=clock)
        gateway.follow((KEY,))
        team.stores.append(store)
        team.gateways.append(gateway)
    await team.pass_time(1)
    yield team
    team.database.close()


async def test_what_records_say_is_spent_is_not_there_any_more(team: Ledgers) -> None:
    team.recorded = 950.0
    await team.pass_time(1)
    await team.ask(0, 0.5)  # it looks again, since somebody asks
    await team.pass_time(1)

    assert (await team.ask(0, 100)).refused == "budget"
    assert (await team.ask(0, 40)).granted.budget >= 40


async def test_a_request_that_is_over_counts_until_its_record_is_there_and_then_once(team: Ledgers) -> None:
    for _ in range(5):
        assert await team.spend(0, 150)
    await team.pass_time(0.6)
    assert not await team.spend(0, 300)

    team.recorded = 750.0
    await team.pass_time(5)

    assert not await team.spend(0, 300)
    assert await team.spend(0, 200)


async def test_a_request_that_came_to_less_leaves_the_rest(team: Ledgers) -> None:
    assert await team.spend(0, 900)
    team.recorded = 100.0
    await team.pass_time(5)

    assert await team.spend(0, 800)


async def test_what_is_in_records_that_are_not_in_the_store_yet_is_spent(team: Ledgers) -> None:
    assert await team.spend(0, 500)
    team.unrecorded = 500.0
    await team.pass_time(10)

    assert not await team.spend(0, 600)
    assert not await team.spend(len(team.gateways) - 1, 600)


async def test_a_refusal_says_when_the_budget_begins_anew(team: Ledgers) -> None:
    team.recorded = BUDGET
    await team.pass_time(1)
    await team.ask(0, 1)
    refusal = await team.ask(0, 1)

    assert refusal.refused == "budget"
    day = 86_400
    assert refusal.retry_after_s == pytest.approx(day - team.clock.now % day, abs=2)
    team.recorded, team.clock.now = 0.0, team.clock.now + refusal.retry_after_s
    await team.pass_time(1)
    assert await team.spend(0, 100)


async def test_what_is_only_set_aside_for_requests_that_run_is_there_again_soon(team: Ledgers) -> None:
    reply = await team.ask(0, 900)
    team.gateways[0].spent(1, Spent("a", Amounts(budget=900)))
    refusal = await team.ask(len(team.gateways) - 1, 200)
    assert refusal.refused == "budget"
    assert refusal.retry_after_s == 2

    team.gateways[0].spent(1, Spent("a", settled=((reply.slot, Amounts(budget=-900)),)))
    team.recorded = 100.0
    await team.pass_time(3)
    assert await team.spend(len(team.gateways) - 1, 200)


async def test_without_the_store_each_gateway_has_its_share_of_what_is_left(team: Ledgers) -> None:
    team.recorded = 400.0
    await team.ask(0, 1)
    await team.pass_time(3)
    for store in team.stores:
        store.is_up = False
    await team.pass_time(4)
    let_through = 0.0
    for number in range(len(team.gateways)):
        while await team.spend(number, 20):
            let_through += 20

    assert 600 - 20 * len(team.gateways) - 10 <= let_through <= 600


async def test_where_nothing_is_recorded_what_was_set_aside_counts(team: Ledgers) -> None:
    for gateway in team.gateways:
        gateway.is_recorded = False
        gateway.follow(())
        gateway.follow((KEY,))
    assert await team.spend(0, 600)
    await team.pass_time(10)

    assert not await team.spend(0, 500)
    assert not await team.spend(len(team.gateways) - 1, 500)
    assert await team.spend(0, 300)
