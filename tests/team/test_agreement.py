"""Which engine a conversation or a session goes to: gateways agree on it and never talk about it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from app.keys import digest
from tests.rigs import team
from tests.rigs.postgres import PostgresServer
from tests.rigs.team import GatewayTeam
from tests.rigs.team_load import TeamLoad

SECRET = "mp-team-0123456789"
KEYS = [{"name": "office", "sha256": digest(SECRET)}]
INSTRUCTIONS = {"role": "system", "content": "You are a patient clerk. " * 100}
CONVERSATIONS = 12


@pytest.fixture(scope="module", params=["prefix", "session"])
def two(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[GatewayTeam]:
    """Two gateways with two relays each, and three engines."""
    how: dict[str, Any] = {"store": postgres.database(), "keys": KEYS, "relays": 2, "model": {"route": request.param}}
    with team.running(tmp_path_factory.mktemp("two"), gateways=2, engines=3, **how) as members:
        yield members


def said(conversation: int, turn: int) -> list[dict[str, str]]:
    """All that is sent with a turn."""
    messages = [INSTRUCTIONS]
    for number in range(turn):
        messages.append({"role": "user", "content": f"{conversation}: question {number}"})
        messages.append({"role": "assistant", "content": f"{conversation}: answer {number}"})
    return [*messages, {"role": "user", "content": f"{conversation}: question {turn}"}]


async def ask(load: TeamLoad, gateway: int, turn: int) -> None:
    """The next turn of every conversation, on connections of their own: any relay may get it."""
    for number in range(CONVERSATIONS):
        call = await load.ask(
            gateway, SECRET, closes=True, messages=said(number, turn), user=f"user {number}", stream=False
        )
        assert call.is_answered


def places(two: GatewayTeam, begin: int) -> dict[int, list[str]]:
    """Of each conversation, the engines that had its turns from `begin` on."""
    where: dict[int, set[str]] = defaultdict(set)
    for engine in two.engines:
        for request in engine.requests():
            match = re.match(r"(\d+): question (\d+)$", request.said)
            assert match is not None
            if int(match[2]) >= begin:
                where[int(match[1])].add(engine.url)
    return {number: sorted(urls) for number, urls in where.items()}


async def test_turns_that_come_through_one_gateway_or_the_other_go_to_one_engine(two: GatewayTeam) -> None:
    load = TeamLoad(two.urls)
    for turn in range(4):
        await ask(load, turn % 2, turn)
    agreed = places(two, 0)
    assert {len(urls) for urls in agreed.values()} == {1}
    assert len({urls[0] for urls in agreed.values()}) == 3

    # One gateway has to do without an engine that the other one goes on using.
    two.members[0].order("POST", "/admin/backends/engine-1/stop")
    two.until(lambda member: member is not two.members[0] or state(member, "engine-1") == "stopped")
    await ask(load, 0, 4)
    await ask(load, 0, 5)
    gone = two.engines[0].url
    assert {number: urls for number, urls in places(two, 4).items() if agreed[number] != [gone]} == {
        number: urls for number, urls in agreed.items() if urls != [gone]
    }
    assert gone not in {url for urls in places(two, 4).values() for url in urls}
    two.members[0].order("POST", "/admin/backends/engine-1/start")
    two.until(lambda member: state(member, "engine-1") == "ready")
    for turn in range(6, 9):
        await ask(load, turn % 2, turn)

    assert places(two, 6) == agreed


def state(member: team.TeamMember, backend: str) -> str:
    """How one gateway sees an engine."""
    return next(str(each["state"]) for each in member.health()["backends"] if each["name"] == backend)
