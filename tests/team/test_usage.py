"""Usage survives: relays, supervisors and the store are killed at random under load, and every answer that a client has
got whole is counted once, with what the engine has sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.keys import digest
from app.store.database import Database, Row
from app.store.opening import database_at
from tests.rigs.postgres import PostgresServer
from tests.rigs.team import GatewayTeam, running
from tests.rigs.team_load import TeamCall, TeamLoad

SECRET = "mp-team-0123456789"
RATE = 25.0
PATIENCE_S = 120.0
Figures = Callable[[str, object], None]


@dataclass
class _Killer:
    """Kills one after the other, each a moment after the one before is back."""

    team: GatewayTeam
    server: PostgresServer | None
    rng: random.Random
    kills: Counter[str] = field(default_factory=Counter)

    def once(self) -> None:
        what = self.rng.choices(("relay", "supervisor", "store"), (5, 2, 2 if self.server is not None else 0))[0]
        member = self.rng.choice(self.team.members)
        time.sleep(self.rng.uniform(0.0, 0.4))
        if what == "relay":
            member.kill_relay(self.rng.randrange(2))
        elif what == "supervisor":
            member.kill()
            time.sleep(self.rng.uniform(0.0, 0.3))
            member.start()
            member.wait_ready()
        elif self.server is not None:
            self.server.kill()
            time.sleep(self.rng.uniform(0.0, 1.5))
            self.server.start()
        self.kills[what] += 1


async def _ends_after(load: TeamLoad, work: Callable[[], Awaitable[None]]) -> None:
    """Requests at RATE, each on its own, until the work is done."""
    rng = random.Random(7)
    asking: set[asyncio.Task[Any]] = set()
    working = asyncio.ensure_future(work())
    while not working.done():
        task = asyncio.create_task(load.ask(len(load.calls) % len(load.urls), SECRET))
        asking.add(task)
        task.add_done_callback(asking.discard)
        await asyncio.sleep(rng.expovariate(RATE))
    await working
    await asyncio.gather(*asking)
    await load.aclose()


async def _all_stored(team: GatewayTeam, database: Database) -> list[Row]:
    """The records in the store, once no more come."""
    async with asyncio.timeout(PATIENCE_S):
        last = -1
        while True:
            rows = await database.fetch("SELECT COUNT(*) AS count FROM usage_records")
            healths = [await asyncio.to_thread(member.health) for member in team.members]
            is_quiet = all(health["store"]["usage_pending"] == 0 for health in healths)
            if is_quiet and rows[0]["count"] == last:
                break
            last = rows[0]["count"]
            await asyncio.sleep(1.0)
    return list(await database.fetch_long("SELECT * FROM usage_records"))


def _mistakes(calls: list[TeamCall], rows: list[Row], team: GatewayTeam) -> tuple[list[str], list[str], list[str]]:
    """The requests whose answer their client has, and that are not in the store; those that are there twice; those that
    are there with other tokens than the engine sent."""
    by_id: dict[str, list[Row]] = {}
    for row in rows:
        by_id.setdefault(row["request_id"], []).append(row)
    sent = {each.request_id: each for each in team.requests() if each.is_whole}
    answered = [call for call in calls if call.is_answered]
    lost = [call.request_id for call in answered if call.request_id not in by_id]
    doubled = [id for id, each in by_id.items() if len(each) > 1]
    wrong = []
    for call in answered:
        engine = sent[call.request_id]
        assert call.usage is not None
        told = (call.usage["prompt_tokens"], call.usage["completion_tokens"])
        tokens = (engine.prompt_tokens, engine.completion_tokens)
        kept = {(row["input_tokens"], row["output_tokens"], row["outcome"]) for row in by_id.get(call.request_id, [])}
        if told != tokens or kept - {(*tokens, "ok")}:
            wrong.append(call.request_id)
    return lost, doubled, wrong


@pytest.mark.parametrize(
    ("store", "kills"),
    [
        ("postgresql", 10),
        pytest.param("postgresql", 200, marks=pytest.mark.full),
        pytest.param("sqlite", 50, marks=pytest.mark.full),
    ],
)
async def test_every_answer_is_counted_once_whatever_is_killed(
    tmp_path: Path, store: str, kills: int, record_property: Figures
) -> None:
    began = time.monotonic()
    settings: dict[str, Any] = {"keys": [{"name": "office", "sha256": digest(SECRET), "team": "law"}], "relays": 2}
    settings["engine_options"] = ("--first", "0.02", "--pace", "0.002")
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(PostgresServer()) if store == "postgresql" else None
        url = server.database() if server is not None else None
        # A file is one gateway's.
        settings |= {"store": {"url": url, "timeout_s": 1.0}, "gateways": 2} if url is not None else {"gateways": 1}
        team = opened.enter_context(running(tmp_path, **settings))
        killer = _Killer(team, server, random.Random(kills))
        load = TeamLoad(team.urls, hung_s=30.0)

        async def kill_all() -> None:
            for _ in range(kills):
                await asyncio.to_thread(killer.once)

        await _ends_after(load, kill_all)
        await asyncio.to_thread(team.wait_ready)
        database = database_at(url, team.members[0].state / "store.db", 20.0)
        rows = await _all_stored(team, database)
        days = await database.fetch("SELECT * FROM usage_days")
        await database.aclose()
        lost, doubled, wrong = _mistakes(load.calls, rows, team)
        health = [member.health()["store"] for member in team.members]
        left = [path.name for member in team.members for path in (member.state / "usage").glob("*")]

    answered = sum(call.is_answered for call in load.calls)
    record_property(
        "usage",
        f"{dict(killer.kills)} in {time.monotonic() - began:.0f} s; {len(load.calls)} requests, {answered} answered, "
        f"{len(rows)} records, {len(lost)} lost, {len(doubled)} doubled, {len(wrong)} with other tokens",
    )
    assert answered > len(load.calls) / 3
    assert (lost, doubled, wrong) == ([], [], [])
    assert sum(row["requests"] for row in days) == len(rows)
    assert sum(row["output_tokens"] for row in days) == sum(row["output_tokens"] for row in rows)
    assert {each["usage_lost"] for each in health} == {0}
    # Of relays that run each has a segment or two; those of all that were killed are gone.
    assert sum(name.endswith(".segment") for name in left) <= len(health) * 2 * 2
    assert not [name for name in left if name.endswith(".damaged")]
