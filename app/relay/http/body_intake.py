"""How much one relay takes in of its clients' bodies: so many bytes at once, and one large body at a time.

What takes long with a large body is done in a thread, so that other requests go on. The interpreter changes threads
between two steps only, so no step is longer than one pass over the body, whose bytes and items are bounded
(json_body.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from app.errors import Problem
from app.relay.http import json_body
from app.relay.http.request import Request

T = TypeVar("T")
# Bodies up to this size are always taken: there are no more of them than connections.
SMALL_BYTES = 64 * 1024
# Bodies up to this size are worked on at once, without a thread: with the smallest objects in it, that takes 10 ms.
INLINE_BYTES = 32 * 1024


class BodyIntake:
    """Counts the bytes that are held, and lets large bodies be worked on one after another."""

    def __init__(self) -> None:
        self._held_bytes = 0
        self._turn = asyncio.Lock()

    def admit(self, request: Request, size: int) -> None:
        """Count `size` more bytes as held by the request; Problem (503) where that is too much for all together."""
        limits = request.table.limits
        limit = max(limits.max_bodies_bytes, limits.max_body_bytes)
        if request.held_bytes + size > SMALL_BYTES and self._held_bytes + size > limit:
            message = "The gateway holds as many bytes of requests as it may; send the request again later."
            raise Problem(503, "too_many_bytes", message, headers={"x-should-retry": "true"})
        self._held_bytes += size
        request.held_bytes += size

    def release(self, request: Request) -> None:
        """The request is over and holds no bytes any more."""
        self._held_bytes -= request.held_bytes
        request.held_bytes = 0

    async def read(self, request: Request, max_items: int = json_body.MAX_ITEMS) -> bytes:
        """The whole body, checked by `json_body.walk`; its Problem (400), or one for a body that is too large."""
        body = await request.body(hold=lambda size: self.admit(request, size))
        if len(body) <= INLINE_BYTES:
            json_body.check(body, max_items)
        else:
            async with self._turn:
                for _ in json_body.walk(body, max_items):
                    await asyncio.sleep(0)
        return body

    def read_now(self, request: Request, max_items: int = json_body.MAX_ITEMS) -> bytes | None:
        """What `read` returns, for a small body that is there already; None for every other."""
        body = request.body_now
        if body is None or len(body) > INLINE_BYTES:
            return None
        self.admit(request, len(body))
        json_body.check(body, max_items)
        return body

    async def work(self, size: int, call: Callable[[], T], inline_bytes: int = INLINE_BYTES) -> T:
        """What `call` returns, in a thread where a body of that size takes it long."""
        if size <= inline_bytes:
            return call()
        await self._turn.acquire()
        work = asyncio.create_task(asyncio.to_thread(call), name="large body")
        work.add_done_callback(self._done)
        return await asyncio.shield(work)

    def _done(self, work: asyncio.Task[T]) -> None:
        """A thread goes on when its client leaves, and keeps its turn until it is through."""
        self._turn.release()
        if not work.cancelled():
            work.exception()  # nobody asks for it where the client has left; asyncio would log that
