"""Short requests at a rate and streams beside them, for as long as a test wants: half of them on fresh connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.rigs.team_load import TeamCall, TeamLoad


@dataclass
class SteadyLoad:
    """Asks one URL. `rate`: short requests that begin in a second; `streams`: how many are always under way, each with
    `stream_tokens`.
    """

    url: str
    secret: str
    rate: float = 50.0
    streams: int = 20
    stream_tokens: int = 200
    load: TeamLoad = field(init=False)

    def __post_init__(self) -> None:
        self.load = TeamLoad([self.url])

    @property
    def refused(self) -> list[TeamCall]:
        """Those that never were accepted: no connection came about."""
        return [call for call in self.load.calls if not call.is_connected]

    @property
    def failed(self) -> Counter[str]:
        """What became of accepted requests that have no whole answer, with how many there are."""
        bad = (call for call in self.load.calls if call.is_connected and not call.is_answered)
        return Counter(f"{call.status} {call.code} {'hung' if call.is_hung else 'cut'}" for call in bad)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It is asked meanwhile; at the end every request is over."""
        ending = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(self.streams):
                group.create_task(self._stream_on(ending, closes=number % 2 == 1))
            group.create_task(self._ask_on(group, ending))
            try:
                yield
            finally:
                ending.set()
        await self.load.aclose()

    async def _ask_on(self, group: asyncio.TaskGroup, ending: asyncio.Event) -> None:
        number = 0
        while not ending.is_set():
            asked = self.load.ask(0, self.secret, closes=number % 2 == 1, stream=False, max_tokens=2)
            group.create_task(asked)
            number += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), 1 / self.rate)

    async def _stream_on(self, ending: asyncio.Event, *, closes: bool) -> None:
        """One stream after the other."""
        while not ending.is_set():
            call = await self.load.ask(0, self.secret, closes=closes, stream=True, max_tokens=self.stream_tokens)
            if not call.is_answered:
                await asyncio.sleep(0.1)
