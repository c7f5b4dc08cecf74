"""The stream of one comparison: its head, what keeps it alive, its end."""

from __future__ import annotations

import asyncio
from typing import Final

from app.errors import Problem
from app.relay.compare.answer import problem_event
from app.relay.http.request import Request
from app.relay.proxy.client_stream import CLOCK_S, STREAM_HEADERS

# The same for all of them: nothing tells which model is waited for.
_SIGN: Final = b": waiting\n\n"


class ComparisonEvents:
    """Writes the events to the client. `hold_s`: whenever nothing has come for so long, at the beginning or later, the
    client gets a comment, since proxies cut what is silent. `close` must be called in the end.
    """

    def __init__(self, request: Request, hold_s: float) -> None:
        self._request = request
        self._hold_s = hold_s
        self._loop = asyncio.get_running_loop()
        self._written_at = self._loop.time()
        self._hold = self._loop.call_later(hold_s, self._keep_alive)

    @property
    def has_begun(self) -> bool:
        """Whether the client has got anything."""
        return self._request.response.is_started

    def write(self, data: bytes) -> None:
        """Events, the first with the response's head before them."""
        if not data:
            return
        response = self._request.response
        if not response.is_started:
            response.start(200, {**STREAM_HEADERS, **self._request.base}, None)
        response.write(data)
        self._written_at = self._loop.time()

    def refuse(self, problem: Problem) -> None:
        """The comparison comes to nothing after it has begun: one event says why."""
        self.write(problem_event(problem))
        self.finish()

    def finish(self) -> None:
        """Nothing comes any more."""
        self.close()
        self._request.response.finish()

    def close(self) -> None:
        """No more comments."""
        self._hold.cancel()

    def _keep_alive(self) -> None:
        left_s = self._written_at + self._hold_s - self._loop.time()
        if left_s < CLOCK_S:
            left_s = self._hold_s
            if not self._request.response.is_full:
                self.write(_SIGN)
        self._hold = self._loop.call_later(left_s, self._keep_alive)
