"""The routes about keys (app/supervisor/admin/team/keys_routes.py), over a real store."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio

from app.config.model import Config
from app.keys import digest
from app.supervisor.admin.app import create_admin
from app.supervisor.state_folder import StateFolder
from app.supervisor.team.team import Team

CONFIG = Config.model_validate(
    {
        "backends": {"cloud": {"kind": "ollama"}},
        "models": {"chat": {"backend": "cloud"}, "ollama/*": {"backend": "cloud"}},
        "keys": [
            {"name": "office", "sha256": "a" * 64, "rpm": 5, "replaced": [{"sha256": "b" * 64, "until": "2027-01-01"}]},
            {"name": "API_KEY", "sha256": "c" * 64, "role": "admin", "expires": "2020-01-01"},
        ],
    }
)
FULL = {
    "name": "ada",
    "team": "law",
    "role": "admin",
    "models": ["chat", "ollama/x"],
    "expires": "2030-01-01T00:00:00Z",
    "priority": "batch",
    "rpm": 600,
    "tpm": 60_000,
    "max_parallel": 20,
    "budget": {"money": 20.5, "per": "month"},
}


@pytest_asyncio.fixture
async def team(tmp_path: Path) -> AsyncIterator[Team]:
    with StateFolder(tmp_path / "state") as state:
        made = Team(CONFIG, state, lambda: None, may_be_open=True)
        await made.open()
        yield made
        await made.aclose()


@pytest_asyncio.fixture
async def client(team: Team) -> AsyncIterator[httpx.AsyncClient]:
    nobody = SimpleNamespace(relays=SimpleNamespace(pids=(), connected=()))
    admin = create_admin(cast("Any", SimpleNamespace(team=team, status=lambda: nobody)), "0")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(admin), base_url="http://admin") as made:
        yield made


async def test_a_keys_series_are_there_before_its_first_request(client: httpx.AsyncClient, team: Team) -> None:
    """What a series has when it begins is no growth, so that nobody would be told of it."""
    await client.post("/admin/keys", json=FULL)

    assert {name: counts.requests for name, counts in team.counts().keys.items()} == {
        "office": 0,
        "API_KEY": 0,
        "ada": 0,
    }


async def test_a_key_is_made_with_all_that_it_may_have_and_shown_once(client: httpx.AsyncClient, team: Team) -> None:
    made = await client.post("/admin/keys", json=FULL)
    listed = (await client.get("/admin/keys")).json()

    assert made.status_code == 201
    entry, secret = made.json()["entry"], made.json()["key"]
    shown = {**FULL, "budget": {"tokens": None, "money": 20.5, "per": "month"}}
    assert {name: entry[name] for name in FULL} == shown
    assert secret.startswith("mp-ada-")
    assert [key.sha256 for key in team.keyring.stored.keys] == [digest(secret)]
    assert [key["name"] for key in listed["data"]] == ["office", "API_KEY", "ada"]
    assert listed["data"][2] == entry
    assert secret not in str(listed)
    assert digest(secret) not in str(listed)


async def test_keys_of_the_configuration_are_listed_with_where_they_stand(client: httpx.AsyncClient) -> None:
    office, environment = (await client.get("/admin/keys")).json()["data"]

    assert (office["place"], office["state"], office["rpm"]) == ("file", "good", 5)
    assert [secret["ends"] for secret in office["secrets"]] == ["2027-01-01T00:00:00Z", None]
    assert (environment["place"], environment["state"]) == ("environment", "expired")


async def test_of_a_key_that_was_made_elsewhere_only_the_digest_is_given(client: httpx.AsyncClient, team: Team) -> None:
    made = await client.post("/admin/keys", json={"name": "ada", "sha256": "D" * 64})
    twice = await client.post("/admin/keys", json={"name": "bob", "sha256": "d" * 64})

    assert made.json()["key"] is None
    assert [key.sha256 for key in team.keyring.stored.keys] == ["d" * 64]
    theirs = await client.post("/admin/keys/ada/rotate", json={"sha256": "b" * 64})
    assert [(each.status_code, each.json()["error"]["code"]) for each in (twice, theirs)] == [(409, "name_taken")] * 2


async def test_an_edit_changes_the_fields_that_are_there(client: httpx.AsyncClient, team: Team) -> None:
    made = (await client.post("/admin/keys", json=FULL)).json()["entry"]

    first = await client.post("/admin/keys/ada/edit", json={"rpm": None, "models": None, "name": "a/b c"})
    second = await client.post(f"/admin/keys/{made['id']}/edit", json={"budget": {"tokens": 9, "per": "day"}})
    third = await client.post("/admin/keys/a%2Fb c/edit", json={"expires": None, "team": None})

    assert [each.status_code for each in (first, second, third)] == [200, 200, 200]
    after = third.json()
    assert {name: after[name] for name in ("name", "rpm", "tpm", "models", "expires", "team", "role")} == {
        "name": "a/b c",
        "rpm": None,
        "tpm": 60_000,
        "models": None,
        "expires": None,
        "team": None,
        "role": "admin",
    }
    assert after["budget"] == {"tokens": 9, "money": None, "per": "day"}
    assert [key.name for key in team.keyring.stored.keys] == ["a/b c"]


async def test_a_rotated_key_has_a_new_secret_and_the_old_one_for_a_while(
    client: httpx.AsyncClient, team: Team
) -> None:
    first = (await client.post("/admin/keys", json={"name": "ada"})).json()["key"]
    answer = (await client.post("/admin/keys/ada/rotate", json={})).json()

    old, new = answer["entry"]["secrets"]
    grace = datetime.datetime.fromisoformat(old["ends"]) - datetime.datetime.fromisoformat(new["created"])
    assert (grace, new["ends"]) == (datetime.timedelta(days=1), None)
    assert [key.sha256 for key in team.keyring.stored.keys] == [digest(first), digest(answer["key"])]


async def test_a_revoked_key_opens_nothing_at_once_and_is_listed_as_such(client: httpx.AsyncClient, team: Team) -> None:
    await client.post("/admin/keys", json={"name": "ada"})

    ended = await client.post("/admin/keys/ada/revoke")
    listed = (await client.get("/admin/keys")).json()["data"]

    assert (ended.status_code, ended.json()["state"]) == (200, "revoked")
    assert team.keyring.stored.keys == ()
    assert team.keyring.stored.is_closed
    assert [key["state"] for key in listed] == ["good", "expired", "revoked"]


REFUSED: dict[str, tuple[str, dict[str, Any] | None, int, str, str]] = {
    "a name of the file": ("", {"name": "office"}, 409, "name_taken", "There is a key 'office' in the configuration"),
    "a name of the store": ("", {"name": "there"}, 409, "name_taken", "There is a key 'there' already."),
    "another's name": ("/there/edit", {"name": "office"}, 409, "name_taken", "'office'"),
    "no name": ("/there/edit", {"name": None}, 400, "invalid_request", "name: a key needs one"),
    "a name of blanks": ("", {"name": "  "}, 400, "invalid_request", "name: "),
    "a model that is not here": (
        "",
        {"name": "x", "models": ["chatt"]},
        400,
        "invalid_request",
        "'chatt' is not a model",
    ),
    "an end that is over": ("", {"name": "x", "expires": "2020-01-01T00:00:00Z"}, 400, "invalid_request", "expires: "),
    "no models": ("", {"name": "x", "models": []}, 400, "invalid_request", "models: "),
    "a field that is none": ("", {"name": "x", "rpn": 5}, 400, "invalid_request", "rpn: "),
    "a limit of nothing": ("", {"name": "x", "rpm": 0}, 400, "invalid_request", "rpm: "),
    "two budgets": (
        "",
        {"name": "x", "budget": {"tokens": 1, "money": 1, "per": "day"}},
        400,
        "invalid_request",
        "needs either `tokens` or `money`",
    ),
    "a digest that is none": ("", {"name": "x", "sha256": "secret"}, 400, "invalid_request", "sha256: "),
    "a key of the file": ("/office/edit", {"rpm": 1}, 409, "key_of_file", "is one of the configuration file"),
    "a key of the environment": ("/API_KEY/revoke", None, 409, "key_of_file", "is one of API_KEY"),
    "nobody's": ("/nobody/rotate", {}, 404, "key_not_found", "There is no key 'nobody' in the store."),
    "a grace without end": ("/there/rotate", {"grace_s": 1e12}, 400, "invalid_request", "grace_s: "),
}


@pytest.mark.parametrize(("path", "body", "status", "code", "told"), REFUSED.values(), ids=REFUSED)
async def test_what_is_not_possible_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, team: Team, path: str, body: dict[str, Any] | None, status: int, code: str, told: str
) -> None:
    await client.post("/admin/keys", json={"name": "there"})
    before = team.keyring.stored

    refused = await client.post(f"/admin/keys{path}", json=body)

    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert told in refused.json()["error"]["message"]
    assert team.keyring.stored == before


async def test_while_the_store_is_away_keys_are_shown_as_they_were_and_none_is_changed(
    client: httpx.AsyncClient, team: Team
) -> None:
    await client.post("/admin/keys", json={"name": "ada"})
    team.store.is_up, team.store.reason = False, "it is away"

    listed = (await client.get("/admin/keys")).json()
    refused = await client.post("/admin/keys/ada/revoke")

    assert [key["name"] for key in listed["data"]] == ["office", "API_KEY", "ada"]
    assert "it is away" in listed["store_down"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    assert refused.headers["retry-after"] == "5"
