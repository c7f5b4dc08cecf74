"""Several requests to one engine, one after the other, for one response to the client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

import msgspec

from app.dialects.tasks.llama_cpp import Step
from backends.endpoint import Endpoint
from backends.errors import BackendError
from backends.http.exchange import Exchange
from backends.http.pool import ConnectionPool, UpstreamRequest

T = TypeVar("T")
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class MultiCall:
    """The requests that `Steps` ask for (app/dialects/tasks/tasks.py), each once the response before it has come.

    Some of an engine's routes for this lie beside `/v1`. `refused` makes the error for a response that is not good.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        endpoint: Endpoint,
        headers: list[tuple[str, str]],
        refused: Callable[[Exchange], Awaitable[BackendError]],
    ) -> None:
        self._pool = pool
        self._refused = refused
        self._endpoint = endpoint
        self._beside = msgspec.structs.replace(endpoint, address=endpoint.address.removesuffix("/v1"))
        self._headers = headers

    async def run(self, steps: Generator[Step, bytes, T]) -> T:
        """Send them, and return what the steps end with; raises BackendError."""
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._ask(step))
        except StopIteration as end:
            done: T = end.value
            return done
        finally:
            steps.close()

    async def _ask(self, step: Step) -> bytes:
        endpoint = self._beside if step.is_beside else self._endpoint
        exchange = await self._pool.open(
            endpoint, UpstreamRequest("POST" if step.body else "GET", step.path, step.body, self._headers)
        )
        try:
            if exchange.status >= 300:
                raise await self._refused(exchange)
            return await exchange.read(MAX_ANSWER_BYTES)
        finally:
            exchange.close()
