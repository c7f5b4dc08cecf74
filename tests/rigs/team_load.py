"""Clients that ask several gateways at a rate, whatever becomes of their requests, and what each of them was told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.rigs.raw_client import Client, Reply, request


@dataclass(slots=True)
class TeamCall:
    """One request. `gateway`: the index of the URL that it went to; `at`, `ended_at`: Unix seconds; `status`: 0 where
    none came; `is_connected`: a connection came about; `is_whole`: the answer came to its end; `usage`: as it was told;
    `code`, `message`: of the error.
    """

    request_id: str
    gateway: int
    key: str
    at: float
    ended_at: float = 0.0
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    is_whole: bool = False
    is_hung: bool = False
    is_connected: bool = False
    usage: Mapping[str, Any] | None = None
    code: str | None = None
    message: str | None = None

    @property
    def is_answered(self) -> bool:
        """Whether its client has a whole answer."""
        return self.status == 200 and self.is_whole

    @property
    def retry_after_s(self) -> float | None:
        """What it was told to wait, to the millisecond where that was said."""
        exact = self.headers.get("retry-after-ms")
        whole = self.headers.get("retry-after")
        return float(exact) / 1000 if exact is not None else float(whole) if whole is not None else None


@dataclass
class TeamLoad:
    """Asks `urls` for `model` in turn, with a chat of about `prompt` bytes and `max_tokens`; every second one streams.

    `hung_s`: one that takes longer counts as hung. A gateway that takes no connection counts as status 0.
    """

    urls: Sequence[str]
    model: str = "paced"
    max_tokens: int | None = 16
    prompt: str = "Say something about a river."
    hung_s: float = 30.0
    streams: bool | None = None  # None: every second one
    calls: list[TeamCall] = field(default_factory=list)
    _idle: dict[int, list[Client]] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def run(self, secrets: Sequence[str], rate: float, seconds: float, seed: int = 1) -> list[TeamCall]:
        """Requests begin at `rate` in a second, by chance; with each key in turn. All of them, once all are over."""
        began, due, rng = time.perf_counter(), 0.0, random.Random(seed)
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due += rng.expovariate(rate)
                if due >= seconds:
                    break
                await asyncio.sleep(began + due - time.perf_counter())
                group.create_task(self.ask(number % len(self.urls), secrets[number // len(self.urls) % len(secrets)]))
        await self.aclose()
        return self.calls

    async def ask(self, gateway: int, secret: str, *, closes: bool = False, **fields: object) -> TeamCall:
        """One request, to its end; on a connection of its own where it `closes` it. `fields`: of its body."""
        number = next(self._numbers)
        call = TeamCall(f"team-{id(self):x}-{number}", gateway, secret, time.time())
        self.calls.append(call)
        body: dict[str, object] = {"model": self.model, "messages": [{"role": "user", "content": self.prompt}]}
        body["stream"] = number % 2 == 1 if self.streams is None else self.streams
        body |= {"max_tokens": self.max_tokens} if self.max_tokens is not None else {}
        body |= fields
        body |= {"stream_options": {"include_usage": True}} if body["stream"] else {}
        headers = {"authorization": f"Bearer {secret}", "x-request-id": call.request_id}
        headers |= {"connection": "close"} if closes else {}
        data = request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
        try:
            async with asyncio.timeout(self.hung_s):
                reply = await self._exchanged(call, data, closes=closes)
        except TimeoutError:
            call.is_hung = True
        except OSError:
            pass
        else:
            _note(call, reply)
        call.ended_at = time.time()
        return call

    async def _exchanged(self, call: TeamCall, data: bytes, *, closes: bool) -> Reply:
        """On a kept connection, where there is one that the gateway has not closed."""
        idle = self._idle.setdefault(call.gateway, [])
        kept = [] if closes else idle
        client = next((each for each in iter(lambda: kept.pop() if kept else None, None) if _is_open(each)), None)
        if client is None:
            client = await Client(self.urls[call.gateway]).__aenter__()
        call.is_connected = True
        try:
            client.send(data)
            reply = await client.reply()
        except BaseException:
            client.writer.close()
            raise
        if reply.is_whole and not closes and reply.headers.get("connection") != "close":
            idle.append(client)
        else:
            client.writer.close()
        return reply

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        for client in itertools.chain.from_iterable(self._idle.values()):
            with contextlib.suppress(OSError):
                await client.__aexit__()
        self._idle.clear()


def _is_open(client: Client) -> bool:
    if client.writer.is_closing() or client.reader.at_eof():
        client.writer.close()
        return False
    return True


def _note(call: TeamCall, reply: Reply) -> None:
    """What came, as the call keeps it."""
    call.status, call.headers, call.is_whole = reply.status, reply.headers, reply.is_whole
    if not reply.is_whole or not reply.body:
        return
    if reply.headers.get("content-type", "").startswith("text/event-stream"):
        events = reply.events
        call.is_whole = events[-1:] == ["[DONE]"]
        call.usage = next((each["usage"] for each in events if isinstance(each, dict) and each.get("usage")), None)
    elif reply.status == 200:
        call.usage = reply.json.get("usage")
    elif reply.headers.get("content-type", "").startswith("application/json"):
        call.code, call.message = reply.error["code"], reply.error["message"]
