"""HAProxy between clients and gateways, with the file that users are given: who leaves, and what it says itself."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.rigs import team
from tests.rigs.haproxy import HaproxyServer
from tests.rigs.raw_client import Client, ask, chat, request
from tests.rigs.serving import until


async def test_a_client_that_leaves_takes_its_request_with_it(tmp_path: Path) -> None:
    engine = ("--first", "0.1", "--pace", "60")
    with (
        team.running(tmp_path, gateways=1, engine_options=engine) as one,
        HaproxyServer(tmp_path, team.free_port(), one.urls) as proxy,
    ):
        (gateway,) = one.members
        proxy.wait_up()
        for stream in (False, True):
            async with Client(proxy.url) as client:
                body = json.dumps(chat("paced", stream=stream, max_tokens=100)).encode()
                client.send(request("POST", "/v1/chat/completions", body))
                await asyncio.to_thread(until, lambda: gateway.status()["leases"] == 1)

            await asyncio.to_thread(until, lambda: gateway.status()["leases"] == 0)

        assert [each.is_whole for each in one.requests()] == [False, False]


async def test_what_haproxy_says_itself_is_what_sdks_can_read(tmp_path: Path) -> None:
    with (
        team.running(tmp_path, gateways=1, engine_options=("--pace", "60")) as one,
        HaproxyServer(tmp_path, team.free_port(), one.urls) as proxy,
    ):
        (gateway,) = one.members
        proxy.wait_up()
        asking = asyncio.create_task(ask(proxy.url, "POST", "/v1/chat/completions", chat("paced", max_tokens=9)))
        await asyncio.to_thread(until, lambda: gateway.status()["leases"] == 1)
        await asyncio.to_thread(gateway.kill)
        had = await asking
        # Until its relay has ended too, a connection is taken that nobody answers any more.
        await asyncio.to_thread(until, lambda: not gateway.is_listening())
        had_not = await ask(proxy.url, "POST", "/v1/chat/completions", chat("paced"))

    assert (had.status, had.error["code"], had.headers["x-should-retry"]) == (502, "engine_disconnected", "false")
    assert (had_not.status, had_not.error["code"], had_not.headers["x-should-retry"]) == (
        503,
        "engine_not_ready",
        "true",
    )
    assert had_not.headers["retry-after"] == "5"
