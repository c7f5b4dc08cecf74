"""Conversations and sessions over several engines, through a real relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from app.table import PublicModel, Target
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Reply
from tests.rigs.relay import Rig, backend, running

NAMES = ("first", "second")


@pytest_asyncio.fixture
async def engines() -> AsyncIterator[dict[str, FakeEngine]]:
    async with FakeEngine() as first, FakeEngine() as second:
        yield dict(zip(NAMES, (first, second), strict=True))


@pytest_asyncio.fixture
async def rig(engines: dict[str, FakeEngine]) -> AsyncIterator[Rig]:
    """`fake` by prefix, `sticky` by session, `any` by load."""
    targets = tuple(Target(name, "fake") for name in NAMES)
    served = {
        "fake": PublicModel("fake", targets, route="prefix"),
        "sticky": PublicModel("sticky", targets, route="session"),
        "any": PublicModel("any", targets),
    }
    async with running({name: backend(each.url, name) for name, each in engines.items()}, served) as rig:
        yield rig


def turns(number: int, count: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    said = [{"role": roles[at % 2], "content": f"{number}: turn {at}"} for at in range(2 * count - 1)]
    return [{"role": "system", "content": "Be brief."}, *said]


async def say(rig: Rig, number: int, count: int, model: str = "fake", *, stream: bool = False, **more: Any) -> Reply:
    body = {"model": model, "messages": turns(number, count), "stream": stream}
    reply = await rig.ask(body=body, **more)
    assert reply.status == 200
    assert reply.text
    return reply


async def test_each_turn_of_a_conversation_goes_to_the_same_engine(rig: Rig) -> None:
    where = [(await say(rig, number, 1)).headers["x-modelport-backend"] for number in range(12)]

    for count in (2, 3):
        again = [await say(rig, number, count, stream=count == 2) for number in range(12)]
        assert [reply.headers["x-modelport-backend"] for reply in again] == where
    assert set(where) == set(NAMES)
    by = {by: rig.sample("modelport_placements_total", gen_ai_request_model="fake", by=by) for by in ("hash", "prefix")}
    assert by == {"hash": 12, "prefix": 24}


async def test_an_engine_that_refuses_loses_its_conversations_to_one_that_keeps_them(
    rig: Rig, engines: dict[str, FakeEngine]
) -> None:
    home = (await say(rig, 1, 1)).headers["x-modelport-backend"]
    other = next(name for name in NAMES if name != home)
    engines[home].script("status_429_vllm")

    moved = await say(rig, 1, 2)
    stays = await say(rig, 1, 3)

    assert moved.headers["x-modelport-backend"] == stays.headers["x-modelport-backend"] == other
    assert len(engines[home].posts) == 2


async def test_sessions_stick_whatever_they_say(rig: Rig) -> None:
    seen = set()
    for session in "abcdefgh":
        headers = {"X-Session-Id": session}
        replies = [await say(rig, number, 1, "sticky", headers=headers) for number in range(3)]
        (home,) = {reply.headers["x-modelport-backend"] for reply in replies}
        seen.add(home)

    assert seen == set(NAMES)
    assert rig.sample("modelport_placements_total", gen_ai_request_model="sticky", by="session") == 24
