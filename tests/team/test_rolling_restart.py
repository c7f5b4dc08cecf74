"""Three gateways behind HAProxy are started anew, one after the other, under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
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
KEYS = [{"name": "office", "sha256": digest(SECRET), **LIMITS}]
PACE_S = 0.02


@pytest.mark.parametrize(
    ("rounds", "stream_s", "delay_s"),
    [pytest.param(1, 1.5, 1.5, id="once"), pytest.param(3, 4.0, 5.0, id="three-times", marks=pytest.mark.full)],
)
async def test_three_gateways_are_started_anew_under_load_and_no_accepted_request_fails(
    tmp_path: Path,
    postgres: PostgresServer,
    record_property: Callable[[str, object], None],
    rounds: int,
    stream_s: float,
    delay_s: float,
) -> None:
    """As docs/gateways.md says it: tell one to end, wait until it has, start it, wait until it is in the pool again."""
    server = {"drain_delay_s": delay_s, "drain_s": 30}
    engine = ("--first", "0.02", "--pace", str(PACE_S))
    how: dict[str, Any] = {
        "store": postgres.database(),
        "keys": KEYS,
        "engines": 2,
        "engine_options": engine,
        "server": server,
    }
    with (
        team.running(tmp_path, **how) as three,
        HaproxyServer(tmp_path, team.free_port(), three.urls) as proxy,
    ):
        proxy.wait_up()
        load = SteadyLoad(proxy.url, SECRET, rate=50, streams=20, stream_tokens=int(stream_s / PACE_S))
        async with load.running():
            codes, took_s = [], []
            for number in [1, 2, 3] * rounds:
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
    assert codes == [0, 0, 0] * rounds
    assert len(streams) >= 20 * rounds
