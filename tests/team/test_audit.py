"""Who did what, and votes, over two gateways and a PostgreSQL that goes away."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx

from app.keys import digest
from tests.journeys.gateway import until
from tests.rigs import team
from tests.rigs.postgres import PostgresServer
from tests.rigs.team import MODEL, TeamMember

ADMIN = "mp-admin-0123456789"
KEYS = [{"name": "Anna", "sha256": digest(ADMIN), "role": "admin"}]
HEADERS = {"authorization": f"Bearer {ADMIN}"}


def actions(member: TeamMember) -> list[tuple[str, str, int]]:
    """What the gateway tells of the audit, oldest first."""
    entries = member.ask("/admin/audit?limit=1000")["data"]
    return [(each["actor"], each["action"], each["status"]) for each in reversed(entries)]


def asked(url: str, path: str, body: Any) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, headers=HEADERS, timeout=60)


def test_all_gateways_tell_who_did_what_at_any_of_them_also_while_the_store_was_away(tmp_path: Path) -> None:
    with (
        PostgresServer() as server,
        team.running(tmp_path, store=server.database(), keys=KEYS, gateways=2) as two,
    ):
        first, second = two.members
        assert asked(two.urls[0], "/admin/reload", None).status_code == 200
        os.kill(second.pid, signal.SIGHUP)
        two.until(lambda member: len(actions(member)) == 2)
        expected = [("Anna", "reload", 200), ("SIGHUP", "reload", 200)]
        assert sorted(actions(first)) == sorted(actions(second)) == sorted(expected)

        server.kill()
        refused = asked(two.urls[0], "/admin/backends/never/stop", None)
        assert refused.status_code == 404
        second.order("POST", "/admin/reload")
        first.kill()
        first.start()
        first.wait_ready()
        server.start()

        two.until(lambda member: member.health()["store"]["is_up"] and len(actions(member)) == 4)
        assert ("Anna", "backends.stop", 404) in actions(second)


def test_a_vote_about_a_blind_comparison_may_come_to_another_gateway(tmp_path: Path, postgres: PostgresServer) -> None:
    targets = {"targets": [{"backend": "engine-1", "model": "metered"}]}
    models = {MODEL: targets, "other": {"targets": [{"backend": "engine-2", "model": "metered"}]}}
    with team.running(tmp_path, store=postgres.database(), keys=KEYS, gateways=2, engines=2, models=models) as two:
        body = {
            "models": [MODEL, "other"],
            "messages": [{"role": "user", "content": "Hello"}],
            "blind": True,
            "stream": False,
            "force": True,
        }
        blind = asked(two.urls[0], "/v1/compare", body)
        assert blind.status_code == 200, blind.text
        vote = {"id": blind.json()["id"], "winner": 0}

        answers: list[httpx.Response] = []

        def is_voted() -> bool:
            # What a comparison hides is in the store a moment after it was answered.
            answers.append(asked(two.urls[1], "/v1/compare/votes", vote))
            return answers[-1].status_code != 404

        until(is_voted)
        assert answers[-1].json()["models"] in ([MODEL, "other"], ["other", MODEL])
        again = asked(two.urls[0], "/v1/compare/votes", vote)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "already_voted")
        counted = [httpx.get(f"{url}/v1/compare/votes", headers=HEADERS, timeout=60).json() for url in two.urls]
        assert counted[0] == counted[1]
        assert counted[0]["votes"] == 1
