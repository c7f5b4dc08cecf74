"""What gateways hold and have spent of keys' limits, in both stores."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

import pytest

from app.ipc import NOTHING, Allowance, AllowanceWanted, Amounts, Spent
from app.store.database import Database, Row, Statements, Value
from app.store.tables import gateways, limits
from app.store.tables.limits import HELD, AmountRow
from app.supervisor.team.limits.allowances import TeamAllowances
from app.table import Key, KeyLimits


class GatewayView:
    """The database as one gateway of several sees it."""

    is_shared = True
    is_up = True
    gateways: int | None = None

    def __init__(self, database: Database, id: str, clock: Callable[[], float]) -> None:
        self.id = id
        self._database = database
        self._clock = clock

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        return self._database.dialect

    @property
    def place(self) -> str:
        return self._database.place

    def store_now(self) -> float:
        return self._clock()

    def on_change(self, callback: Callable[[bool], object]) -> None:
        """It is always up."""

    def transaction(self) -> AbstractAsyncContextManager[Statements]:
        return self._database.transaction()

    def alone(self) -> AbstractAsyncContextManager[Statements]:
        return self._database.alone()

    async def fetch(self, sql: str, *args: Value) -> Sequence[Row]:
        return await self._database.fetch(sql, *args)

    async def fetch_long(self, sql: str, *args: Value) -> Sequence[Row]:
        return await self._database.fetch_long(sql, *args)

    async def execute(self, sql: str, *args: Value) -> int:
        return await self._database.execute(sql, *args)

    async def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        await self._database.many(sql, rows)

    async def notify(self, topic: str) -> None:
        await self._database.notify(topic)

    def listen(self, callback: Callable[[str], object]) -> None:
        self._database.listen(callback)

    async def aclose(self) -> None:
        """It stays open."""


def row(gateway: str, slot: int, amount: float, key: str = "k") -> AmountRow:
    return AmountRow(key, "requests", gateway, slot, amount)


async def test_writing_the_same_again_changes_nothing_and_a_new_amount_takes_the_place_of_the_old(
    database: Database,
) -> None:
    for amounts in ((5.0, 1.0), (5.0, 1.0), (7.0, 0.0)):
        async with database.transaction() as statements:
            await limits.lock(statements, ["k"])
            await limits.write(statements, [row("a", 100, amounts[0]), row("a", HELD, amounts[1])])

    async with database.transaction() as statements:
        assert sorted(await limits.own(statements, "a", "k"), key=lambda each: each.slot) == [
            row("a", HELD, 0.0),
            row("a", 100, 7.0),
        ]
        assert await limits.own(statements, "b", "k") == []


async def test_others_see_what_has_changed_and_not_their_own(database: Database) -> None:
    async with database.transaction() as statements:
        await limits.write(statements, [row("a", 100, 5.0), row("a", 50, 9.0), row("b", 100, 3.0), row("a", HELD, 2.0)])
    async with database.transaction() as statements:
        now = (await limits.peers(statements)).now
        seen = await limits.changes(statements, "b", now, oldest=60)
        later = await limits.changes(statements, "b", now + 100, oldest=60)

    assert sorted((each.slot, each.amount) for each in seen) == [(HELD, 2.0), (100, 5.0)]
    assert later == []


async def test_the_gateways_are_those_that_signed_on_with_when_they_spoke_last(database: Database) -> None:
    async with database.transaction() as statements:
        assert (await limits.peers(statements)).said == {}
    for name in ("a", "b"):
        await gateways.beat(database, name, "life", "host", "1")
    async with database.transaction() as statements:
        await limits.say(statements, "a")
        await limits.say(statements, "a")
        peers = await limits.peers(statements)

    assert peers.said.keys() == {"a", "b"}
    assert peers.said["b"] is None
    assert peers.now - (peers.said["a"] or 0.0) < 60


async def test_old_slots_are_removed(database: Database) -> None:
    async with database.transaction() as statements:
        await limits.write(statements, [row("a", 100, 5.0), row("a", 200, 5.0), row("a", HELD, 2.0)])

    assert await limits.sweep(database, 150) == 1


@pytest.fixture
async def team(database: Database) -> AsyncIterator[list[TeamAllowances]]:
    """Three gateways at the store, each at work."""
    clock = asyncio.get_running_loop().time
    members = []
    for name in ("a", "b", "c"):
        await gateways.beat(database, name, "life", "host", "1")
        members.append(TeamAllowances(GatewayView(database, name, clock), clock=clock))
    tasks = [asyncio.create_task(member.run()) for member in members]
    yield members
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def ask(member: TeamAllowances, key: str, needs: Amounts, seq: int) -> Allowance:
    """One wish, spent at once where it is granted."""
    reply: asyncio.Future[Allowance] = asyncio.get_running_loop().create_future()
    member.wanted(1, AllowanceWanted(seq, key, needs, needs), reply.set_result)
    async with asyncio.timeout(30):
        allowance = await reply
    if allowance.granted != NOTHING:
        member.spent(1, Spent(key, allowance.granted))
    return allowance


async def test_gateways_that_ask_at_once_never_get_more_than_there_is(team: list[TeamAllowances]) -> None:
    keys = tuple(Key(name, "", id=name, limits=KeyLimits(rpm=90, tpm=9_000)) for name in ("x", "y"))
    for member in team:
        member.follow(keys)
    granted = dict.fromkeys("xy", NOTHING)

    async def client(member: TeamAllowances, key: str) -> None:
        for seq in range(1, 40):
            got = (await ask(member, key, Amounts(1, 100), seq)).granted
            granted[key] = Amounts(granted[key].requests + got.requests, granted[key].tokens + got.tokens)

    await asyncio.gather(*(client(member, key) for member in team for key in "xy"))

    for total in granted.values():
        assert total.requests <= 90
        assert total.tokens <= 9_000.001
        assert total.requests >= 45


async def test_what_one_gateway_gives_back_another_may_have(team: list[TeamAllowances]) -> None:
    keys = (Key("x", "", id="x", limits=KeyLimits(max_parallel=2)),)
    for member in team:
        member.follow(keys)
    first = await ask(team[0], "x", Amounts(parallel=2), 1)
    second = await ask(team[1], "x", Amounts(parallel=1), 1)
    assert first.granted.parallel == 2
    assert second.refused == "parallel"

    team[0].spent(1, Spent("x", returned=((0.0, Amounts(parallel=2)),)))
    async with asyncio.timeout(30):
        for seq in itertools.count(2):
            if (await ask(team[1], "x", Amounts(parallel=1), seq)).refused is None:
                break
            await asyncio.sleep(0.1)
