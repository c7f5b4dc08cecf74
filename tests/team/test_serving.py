"""Three gateways over one file: each serves by itself."""

from __future__ import annotations

import platform
from pathlib import Path

from app.keys import digest
from tests.rigs import team
from tests.rigs.postgres import PostgresServer
from tests.rigs.team_load import TeamLoad

SECRET = "mp-team-0123456789"
# Limits that nobody reaches, and that are agreed on all the same.
LIMITS = {"rpm": 100_000, "tpm": 10_000_000, "max_parallel": 1000, "budget": {"tokens": 10**9, "per": "day"}}
KEYS = [{"name": "office", "sha256": digest(SECRET), **LIMITS}]


async def test_each_gateway_of_a_team_answers_and_one_that_comes_back_answers_again(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    with team.running(tmp_path, store=postgres.database(), keys=KEYS, engines=2) as three:
        load = TeamLoad(three.urls)
        calls = await load.run([SECRET], rate=40, seconds=1.5)
        assert {call.gateway for call in calls if call.is_answered} == {0, 1, 2}
        assert [call for call in calls if not call.is_answered] == []

        three.members[1].kill()
        three.members[2].kill_relay()
        three.members[1].start()
        three.wait_ready()

        again = [await load.ask(gateway, SECRET) for gateway in range(3)]
        assert [call.status for call in again] == [200, 200, 200]
        sent = {each.request_id: each for each in three.requests() if each.is_whole}
        assert {call.request_id for call in load.calls if call.is_answered} <= set(sent)
        for call in load.calls:
            assert call.usage is not None
            assert call.usage["completion_tokens"] == sent[call.request_id].completion_tokens
        await load.aclose()

        three.until(lambda member: member.health()["store"]["gateways"] == 3)
        for member in three.members:
            health = member.health()
            assert health["gateway"] == platform.node()
            assert health["store"]["names"] == [platform.node()] * 3
            assert health["store"]["is_up"]
        assert len({member.health()["config"] for member in three.members}) == 1
        assert len({member.health()["store"]["gateway"] for member in three.members}) == 3
