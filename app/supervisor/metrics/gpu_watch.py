"""How loaded the GPUs are, without ever waiting for a driver that does not respond."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from app.supervisor.capacity.devices import GpuLoad

log = structlog.get_logger()

ANSWER_S: Final = 1.0


class GpuWatch:
    """Asks `loads` in a thread, which is left behind where it takes too long, and not joined by a second one."""

    def __init__(self, loads: Callable[[], Sequence[GpuLoad]], answer_s: float = ANSWER_S) -> None:
        self._loads = loads
        self._answer_s = answer_s
        self._asking: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<GpuWatch asking={self._asking is not None and self._asking.is_alive()}>"

    async def read(self) -> Sequence[GpuLoad]:
        """Every GPU's; none where there are none, and while the driver does not respond."""
        if self._asking is not None and self._asking.is_alive():
            return ()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[GpuLoad]] = loop.create_future()
        # A daemon: one that hangs must not keep the process from ending, as the loop's own threads would.
        self._asking = threading.Thread(target=self._ask, args=(loop, answer), name="GPU loads", daemon=True)
        self._asking.start()
        try:
            async with asyncio.timeout(self._answer_s):
                return await answer
        except TimeoutError:
            log.error("loads of GPUs not readable: the driver does not respond", seconds=self._answer_s)
            return ()

    def _ask(self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Sequence[GpuLoad]]) -> None:
        loads: Sequence[GpuLoad] = ()
        try:
            loads = self._loads()
        except Exception:
            log.exception("loads of GPUs not readable")
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, answer, loads)


def _settle(answer: asyncio.Future[Sequence[GpuLoad]], loads: Sequence[GpuLoad]) -> None:
    if not answer.done():
        answer.set_result(loads)
