"""Three gateways behind HAProxy are started anew, one after the other, under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.keys import digest
from tests.rigs import team
from tests.rigs.haproxy import HaproxyServer
from tests.rigs.postgres import PostgresServer
from tests.rigs.steady_load import SteadyLoad

SECRET = "mp-team-0123456789"
# Limits that nobody reaches, and that are agreed on all the same.
LIMITS = {"rpm": 100_000, "tpm": 10_000_000, "max_parallel": 1000, "budget": {"tokens": 10**9, "per": "day"}}
PACE_S = 0.02


@dataclass(frozen=True)
class Case:
    """`stream_s`: how long a stream takes; `is_store_away`: PostgreSQL is killed before the first gateway ends, and the
    key has no limits, as nobody can say what is left of them.
    """

    rounds: int = 1
    stream_s: float = 1.5
    delay_s: float = 1.5
    relays: int = 1
    is_store_away: bool = False


CASES = [
    pytest.param(Case(), id="once"),
    pytest.param(Case(is_store_away=True), id="while the store is away", marks=pytest.mark.full),
    pytest.param(Case(rounds=3, stream_s=4.0, delay_s=5.0, relays=2), id="three times", marks=pytest.mark.full),
]


@pytest.mark.parametrize("case", CASES)
async def test_three_gateways_are_started_anew_under_load_and_no_accepted_request_fails(
    tmp_path: Path, record_property: Callable[[str, object], None], case: Case
) -> None:
    """As docs/gateways.md says it: tell one to end, wait until it has, start it, wait until it is in the pool again."""
    server = {"drain_delay_s": case.delay_s, "drain_s": 30}
    engine = ("--first", "0.02", "--pace", str(PACE_S))
    key = {"name": "office", "sha256": digest(SECRET), **({} if case.is_store_away else LIMITS)}
    how: dict[str, Any] = {"keys": [key], "engines": 2, "engine_options": engine, "server": server}
    how["relays"] = case.relays
    with (
        PostgresServer() as postgres,
        team.running(tmp_path, store=postgres.database(), **how) as three,
        HaproxyServer(tmp_path, team.free_port(), three.urls) as proxy,
    ):
        proxy.wait_up()
        load = SteadyLoad(proxy.url, SECRET, rate=50, streams=20, stream_tokens=int(case.stream_s / PACE_S))
        async with load.running():
            codes, took_s = [], []
            if case.is_store_away:
                await asyncio.sleep(2)
                await asyncio.to_thread(postgres.kill)
            for number in [1, 2, 3] * case.rounds:
                began = time.monotonic()
                member = three.members[number - 1]
                codes.append(await asyncio.to_thread(member.stop))
                member.start()
                await asyncio.to_thread(proxy.wait_up, f"gateway-{number}")
                took_s.append(round(time.monotonic() - began, 1))

    calls = load.load.calls
    streams = [call for call in calls if call.headers.get("content-type", "").startswith("text/event-stream")]
    record_property("each away for", f"{took_s} s")
    record_property("answered", f"{sum(call.is_answered for call in calls)} of {len(calls)}, streams {len(streams)}")
    assert (load.failed, load.refused) == ({}, [])
    assert codes == [0, 0, 0] * case.rounds
    assert len(streams) >= 20 * case.rounds
