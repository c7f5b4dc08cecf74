"""What a scenario is: how the fake engine behaves for one request, and what a gateway must give its client then."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.fakes.peer import Peer
from tests.fakes.wire import TEXT

Act = Callable[[Peer], Awaitable[None]]


class Stage(enum.StrEnum):
    """When the client can notice it."""

    FINE = "fine"  # an answer in order, if an unusual one
    BEFORE = "before"  # before the first event or the end of a whole answer
    STREAM = "stream"  # after the first event


class End(enum.StrEnum):
    """How the client's response must end."""

    WHOLE = "whole"  # complete: all of `text`, and the end mark where it is a stream
    ERROR = "error"  # a status when nothing was sent yet; else `text`, one error event, no end mark, cut
    OPEN = "open"  # the engine goes on for ever: a deadline or the client ends it
    ANY = "any"  # nothing is promised but that it ends


@dataclass(frozen=True, slots=True)
class Scenario:
    """`owes` are the statuses that a correct gateway may respond with; `text` is what a client must have in the end.

    `only_stream`: True for streams only, False for other responses only, None for both.
    `waits`: the engine itself never ends it.
    """

    act: Act
    stage: Stage
    owes: tuple[int, ...] = (200,)
    end: End = End.WHOLE
    text: str = TEXT
    only_stream: bool | None = None
    waits: bool = False

    def fits(self, *, stream: bool) -> bool:
        """Whether it is meant for such a request."""
        return self.only_stream is None or self.only_stream is stream
