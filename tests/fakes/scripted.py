"""An engine that responds to each body as a test wants, and keeps what it was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tests.fakes import wire
from tests.rigs.hop import Server

Json = dict[str, Any]


class Scripted:
    """`behave(path, body)` gives the bytes of a response, its head included. `bodies` are all that came."""

    def __init__(self, behave: Callable[[str, Json], bytes]) -> None:
        self.behave = behave
        self.bodies: list[Json] = []
        self._server = Server(self._serve)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, trace)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def last(self) -> Json:
        return self.bodies[-1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            body = json.loads(await reader.readexactly(length) or b"{}")
            self.bodies.append(body)
            writer.write(self.behave(head.split(b" ")[1].decode(), body))


def whole(value: object, status: int = 200) -> bytes:
    """A whole response."""
    return wire.whole(status, wire.dumps(value))


def events(*values: object) -> bytes:
    """A stream of these events, and the end mark."""
    return wire.SSE_HEAD + b"".join(wire.chunk(wire.sse(each)) for each in values) + wire.chunk(wire.DONE) + LAST


LAST = wire.LAST_CHUNK
