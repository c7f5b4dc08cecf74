"""What steers an engine is not for clients: none of its operators' routes is a route of the relay."""

from __future__ import annotations

import asyncio

import pytest

from tests.rigs.relay import backend, models, running

# vLLM's, with its development routes on.
ROUTES = [
    *("/sleep", "/sleep?level=1", "/wake_up", "/is_sleeping", "/collective_rpc", "/server_info", "/pause", "/resume"),
    *("/reset_prefix_cache", "/reset_mm_cache", "/abort_requests", "/update_weights", "/scale_elastic_ep", "/load"),
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/law", "/invocations"),
    *("/v1//load_lora_adapter", "/v1/../sleep", "/%73leep", "/v1/chat/completions/../../../sleep"),
]


@pytest.mark.parametrize("path", ROUTES)
async def test_an_operators_route_is_a_404_and_no_engine_hears_of_it(path: str) -> None:
    heard = 0

    async def hear(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += 1
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as engine:
        url = f"http://127.0.0.1:{engine.sockets[0].getsockname()[1]}/v1"
        async with running({"engine": backend(url)}, models("fake")) as rig:
            statuses = [(await rig.ask(path, body)).status for body in (b"", {"model": "fake"})]

    assert statuses == [404, 404]
    assert heard == 0
