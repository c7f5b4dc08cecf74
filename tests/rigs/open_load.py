"""Clients that ask at a rate whatever becomes of their requests, and what became of each: an open load."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Those who ask with one key. `secret`: the key; `rate`: requests that begin in a second; `tier`: OpenAI's
    `service_tier`, where they say one."""

    name: str
    secret: str
    rate: float
    tier: str | None = None


@dataclass(slots=True)
class Call:
    """One request. `began`: seconds since the load began; `tokens`: it asked for so many. `status`: 0 where none came;
    `first_s`: until its first event, or until it was refused; `is_whole`: the response came to its end."""

    caller: str
    began: float
    tokens: int
    status: int = 0
    first_s: float | None = None
    is_whole: bool = False


class _Client(asyncio.Protocol):
    """One kept connection."""

    def __init__(self) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._call: Call | None = None
        self._sent = 0.0
        self._read = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, call: Call, request: bytes) -> asyncio.Future[None]:
        """Send it; done when its response is over, or the connection."""
        assert self._transport is not None
        self._call, self._read = call, bytearray()
        self.over = asyncio.get_running_loop().create_future()
        self._sent = time.perf_counter()
        self._transport.write(request)
        return self.over

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        call, read = self._call, self._read
        if call is None:
            return
        read += data
        if call.status == 0 and b"\r\n\r\n" in read:
            call.status = int(read[9:12])
        if call.first_s is None and (b"data:" in read if call.status == 200 else call.status):
            call.first_s = time.perf_counter() - self._sent
        if call.status == 200:
            if not read.endswith(b"0\r\n\r\n"):
                del read[:-16]
                return
            call.is_whole = True
        elif not self._is_refusal_whole():
            return
        self._call = None
        self.over.set_result(None)

    def _is_refusal_whole(self) -> bool:
        head, end, body = bytes(self._read).partition(b"\r\n\r\n")
        if not end:
            return False
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return not lengths or len(body) >= int(lengths[0][15:])

    def connection_lost(self, exc: Exception | None) -> None:
        self._call = None
        if not self.over.done():
            self.over.set_result(None)


@dataclass
class OpenLoad:
    """Asks `url` for `model`, as the callers do, `tokens` from least to most. `leaves_s`: so long a client waits."""

    url: str
    model: str
    tokens: tuple[int, int] = (5, 25)
    leaves_s: float = PATIENCE_S
    calls: list[Call] = field(default_factory=list)
    seed: int = 1
    _idle: list[_Client] = field(default_factory=list)

    async def run(self, callers: Sequence[Caller], seconds: float) -> list[Call]:
        """Every request that began within so long, once all are over."""
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number, caller in enumerate(callers):
                rng = random.Random(self.seed * 1000 + number)
                group.create_task(self._ask_on(group, caller, rng, began, seconds))
        await self.aclose()
        return self.calls

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        for client in self._idle:
            client.close()
        self._idle.clear()
        await asyncio.sleep(0.01)  # for the transports to be closed

    async def _ask_on(
        self, group: asyncio.TaskGroup, caller: Caller, rng: random.Random, began: float, seconds: float
    ) -> None:
        due = 0.0
        while (due := due + rng.expovariate(caller.rate)) < seconds:
            await asyncio.sleep(began + due - time.perf_counter())
            call = Call(caller.name, due, rng.randint(*self.tokens))
            self.calls.append(call)
            group.create_task(self.ask(caller, call))

    async def ask(self, caller: Caller, call: Call) -> None:
        """One request, until it is over or its client leaves."""
        request = self._request(caller, call.tokens)
        client = await self._client()
        try:
            async with asyncio.timeout(self.leaves_s):
                await client.ask(call, request)
        except TimeoutError:
            client.close()
        if client.is_open:
            self._idle.append(client)

    async def _client(self) -> _Client:
        while self._idle:
            client = self._idle.pop()
            if client.is_open:
                return client
        parts = urlsplit(self.url)
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(_Client, parts.hostname or "", parts.port or 80)
        return client

    def _request(self, caller: Caller, tokens: int) -> bytes:
        body = {"model": self.model, "stream": True, "max_tokens": tokens}
        body |= {"messages": [{"role": "user", "content": "Hi"}]}
        body |= {"service_tier": caller.tier} if caller.tier is not None else {}
        text = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {caller.secret}\r\n"
        return head.encode() + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text)
