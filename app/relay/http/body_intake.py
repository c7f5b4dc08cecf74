"""What one relay takes on of its clients' bodies: so many bytes at once, and one large one at a time.

The interpreter lets other work in between the steps of a thread only. So what takes long is done in one: no call in it
is longer than one pass over the body, which is bounded in bytes and in items (json_body.py).
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
# Bodies up to this size are read without letting other work in between: of the smallest objects it takes 10 ms.
INLINE_BYTES = 32 * 1024


class BodyIntake:
    """Owns the count of bytes that are held, and the turn of the large bodies."""

    def __init__(self) -> None:
        self._held_bytes = 0
        self._turn = asyncio.Lock()

    def admit(self, request: Request, size: int) -> None:
        """Hold a piece of a body; Problem (503) where all of them together are too much."""
        limits = request.table.limits
        limit = max(limits.max_bodies_bytes, limits.max_body_bytes)
        if request.held_bytes + size > SMALL_BYTES and self._held_bytes + size > limit:
            message = "The gateway holds as many bytes of requests as it may; send the request again later."
            raise Problem(503, "too_many_bytes", message, headers={"x-should-retry": "true"})
        self._held_bytes += size
        request.held_bytes += size

    def release(self, request: Request) -> None:
        """The request is over."""
        self._held_bytes -= request.held_bytes
        request.held_bytes = 0

    async def read(self, request: Request, max_items: int = json_body.MAX_ITEMS) -> bytes:
        """The whole body, sound as `walk` has it."""
        body = await request.body(hold=lambda size: self.admit(request, size))
        if len(body) <= INLINE_BYTES:
            for _ in json_body.walk(body, max_items):
                pass
        else:
            async with self._turn:
                for _ in json_body.walk(body, max_items):
                    await asyncio.sleep(0)
        return body

    async def work(self, size: int, call: Callable[[], T], inline_bytes: int = INLINE_BYTES) -> T:
        """What `call` makes of a body of that size."""
        if size <= inline_bytes:
            return call()
        await self._turn.acquire()
        work = asyncio.create_task(asyncio.to_thread(call), name="large body")
        work.add_done_callback(self._done)
        return await asyncio.shield(work)

    def _done(self, work: asyncio.Task[T]) -> None:
        """A thread goes on when its client leaves, and has its turn until it is through."""
        self._turn.release()
        if not work.cancelled():
            work.exception()  # of a client that left nobody asks for it
