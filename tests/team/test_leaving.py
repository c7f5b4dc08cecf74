"""A client leaves while HAProxy and a gateway stand between it and its engine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.rigs import team
from tests.rigs.haproxy import HaproxyServer
from tests.rigs.raw_client import Client, chat, request
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
