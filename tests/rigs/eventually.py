"""Waiting for what others bring about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

LONGEST_S = 30.0


async def eventually(is_so: Callable[[], Awaitable[object]]) -> None:
    """Return once the answer is true. TimeoutError after half a minute."""
    async with asyncio.timeout(LONGEST_S):
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.01)


async def is_gone(path: Path) -> bool:
    """Whether there is no such file."""
    return not await asyncio.to_thread(path.exists)
