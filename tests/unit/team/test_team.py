"""The parts of a team together: what fails in one of them ends neither the others nor the gateway."""

from __future__ import annotations

import asyncio

import pytest

from app.supervisor.team.team import kept_up


async def test_a_part_that_fails_begins_again() -> None:
    begun, works = 0, asyncio.Event()

    async def run() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise ValueError("a mistake of ours")
        works.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(kept_up("keys", run, 0.0))
    async with asyncio.timeout(20):
        await works.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert begun == 3


async def test_a_part_that_has_nothing_more_to_do_ends() -> None:
    begun: list[str] = []

    async def run() -> None:
        begun.append("votes")

    await kept_up("votes", run, 0.0)

    assert begun == ["votes"]
