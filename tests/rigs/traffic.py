"""Clients that ask a gateway steadily while it ends: real httpx ones, half of which keep their connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests import ROOT
from tests.fakes.wire import WORDS

SHORT = "fault:slow_first_event:0.05"
# Never more than this, or a hanging connection would hang the caller.
PATIENCE_S = 60.0


@dataclass
class Tally:
    """What became of the requests. `refused`: no connection came about, so the gateway never had them. `failed`: every
    other one that is not a whole answer, by its reason. `not_ready_at` and `ready_at`: of time.monotonic(), when
    `/readyz` first said 503, and when it last said 200.
    """

    answered: int = 0
    streamed: int = 0
    answered_while_ending: int = 0
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    not_ready_at: float | None = None
    ready_at: float | None = None


class Traffic:
    """Requests at a rate, and streams beside them, until nothing takes a connection any more.

    `rate`: requests that begin in a second; `streams`: how many are always under way; `stream_s`: how long one takes.
    """

    def __init__(self, url: str, model: str, rate: float, streams: int, stream_s: float) -> None:
        self.tally = Tally()
        self.begun = asyncio.Event()  # every stream has had its first event, and some requests were answered
        self.is_told = False  # the gateway was told to end
        self._url = url
        self._model = model
        self._rate = rate
        self._streams = streams
        self._stream_s = stream_s
        self._flowing = 0
        self._is_watched = False
        self._is_over = asyncio.Event()

    async def run(self) -> Tally:
        """Ask until the gateway takes no more connections, and every answer has come."""
        pool = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        one_off = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=PATIENCE_S, limits=pool, trust_env=False) as keeping,
            httpx.AsyncClient(base_url=self._url, timeout=PATIENCE_S, limits=one_off, trust_env=False) as closing,
        ):
            clients = (keeping, closing)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                for number in range(self._streams):
                    group.create_task(self._stream_on(clients[number % 2]))
                number = 0
                while not self._is_over.is_set():
                    group.create_task(self._ask(clients[number % 2]))
                    number += 1
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._is_over.wait(), 1 / self._rate)
        return self.tally

    async def _watch(self) -> None:
        command = (sys.executable, "-m", "tests.rigs.readiness", self._url)
        watcher = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        assert watcher.stdout is not None
        try:
            self._is_watched = bool(await watcher.stdout.readline())
            said = await watcher.stdout.read()
            await watcher.wait()
        finally:
            if watcher.returncode is None:
                watcher.kill()
        seen = json.loads(said)
        self.tally.not_ready_at, self.tally.ready_at = seen["not_ready_at"], seen["ready_at"]

    async def _ask(self, client: httpx.AsyncClient) -> None:
        async with self._counted():
            answer = await client.post("/v1/chat/completions", json=self._body("short"))
            if answer.status_code != 200 or not answer.json()["choices"][0]["message"]["content"]:
                self.tally.failed[f"{answer.status_code} {answer.text[:200]}"] += 1
                return
            self.tally.answered += 1
            if self.is_told:
                self.tally.answered_while_ending += 1
            self._note()

    async def _stream_on(self, client: httpx.AsyncClient) -> None:
        """One stream after the other."""
        while not self._is_over.is_set():
            async with self._counted():
                await self._stream(client)
            if self.tally.refused:
                return

    async def _stream(self, client: httpx.AsyncClient) -> None:
        body = {**self._body("long"), "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                self.tally.failed[f"{answer.status_code} {(await answer.aread())[:200]!r}"] += 1
                return
            self._flowing += 1
            last = ""
            async for line in answer.aiter_lines():
                self._note()
                last = line or last
            if last != "data: [DONE]":
                self.tally.failed[f"a stream that ends with {last[:200]}"] += 1
                return
            self.tally.streamed += 1

    @contextlib.asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.ConnectError:
            self.tally.refused += 1
            self._is_over.set()
        except (httpx.HTTPError, json.JSONDecodeError, KeyError) as exc:
            self.tally.failed[repr(exc)] += 1

    def _note(self) -> None:
        if self._is_watched and self._flowing >= self._streams and self.tally.answered >= self._rate / 2:
            self.begun.set()

    def _body(self, length: str) -> dict[str, Any]:
        pause = self._stream_s / (len(WORDS) + 3)
        model = f"{self._model}fault:drip:{pause:g}" if length == "long" else f"{self._model}{SHORT}"
        return {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
