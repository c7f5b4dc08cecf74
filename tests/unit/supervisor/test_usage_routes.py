"""`GET /admin/usage`: what was used, as it is asked for."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio

from app.store import schema
from app.store.database import Database
from app.store.sqlite import SqliteDatabase
from app.store.tables import usage
from app.supervisor.admin.app import create_admin
from tests.unit.store.test_usage import made, numbered


@dataclass
class Asked:
    """The route, and the store behind it."""

    client: httpx.AsyncClient
    store: Database

    async def __call__(self, **params: str) -> httpx.Response:
        return await self.client.get("/admin/usage", params=params)


@pytest_asyncio.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Asked]:
    store = SqliteDatabase(tmp_path / "store.db", 20.0)
    await schema.migrate(store)
    now = time.time()
    records = [made(now), made(now, key="k-2", key_name="lab", team=None, model="law"), made(now - 50 * 86_400)]
    await usage.insert(store, "g", numbered(records))
    api: Any = SimpleNamespace(team=SimpleNamespace(store=store, usage=SimpleNamespace(pending=7, retention_days=90)))
    transport = httpx.ASGITransport(cast("Any", create_admin(api, "1")), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield Asked(client, store)
    await store.aclose()


async def test_without_a_word_it_is_the_last_thirty_days_by_key(ask: Asked) -> None:
    answer = (await ask()).json()

    assert (answer["object"], answer["by"], answer["pending"], answer["until"]) == ("list", "key", 7, None)
    assert {row["name"]: row["requests"] for row in answer["data"]} == {"office": 1, "lab": 1}
    assert answer["data"][0].keys() >= {"id", "failed", "input_tokens", "output_tokens", "cached_tokens", "money"}


@pytest.mark.parametrize(
    ("params", "requests"),
    [
        ({"since": "60d"}, {"office": 2, "lab": 1}),
        ({"since": "60d", "until": "40d"}, {"office": 1}),
        ({"since": "3600"}, {"office": 1, "lab": 1}),
        ({"by": "model"}, {"chat": 1, "law": 1}),
        ({"by": "team"}, {"law": 1, "": 1}),
        ({"key": "lab"}, {"lab": 1}),
        ({"model": "chat", "since": "60d"}, {"office": 2}),
        ({"team": "law"}, {"office": 1}),
        ({"team": "nobody"}, {}),
    ],
)
async def test_it_is_of_what_was_asked_for(ask: Asked, params: dict[str, str], requests: dict[str, int]) -> None:
    answer = (await ask(**params)).json()

    assert {row["name"]: row["requests"] for row in answer["data"]} == requests


async def test_it_comes_as_csv(ask: Asked) -> None:
    reply = await ask(format="csv", by="model")

    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert reply.text.splitlines()[0].startswith("model,requests,failed")
    assert len(reply.text.splitlines()) == 3


async def test_a_period_whose_records_are_gone_is_not_answered_with_what_is_left(ask: Asked) -> None:
    """Midnight elsewhere is no whole day in UTC: the sums cannot answer it, and the records only in part."""
    long_ago = time.strftime("%Y-%m-%dT00:00", time.gmtime(time.time() - 100 * 86_400))

    part, whole = await ask(since=f"{long_ago}+08:00"), await ask(since=long_ago)

    assert (part.status_code, whole.status_code) == (400, 200)
    assert "records are kept for 90 days" in part.json()["error"]["message"]


@pytest.mark.parametrize("params", [{"since": "whenever"}, {"until": "7x"}, {"by": "colour"}, {"format": "xml"}])
async def test_what_cannot_be_asked_is_said(ask: Asked, params: dict[str, str]) -> None:
    reply = await ask(**params)

    assert reply.status_code == 400
    assert next(iter(params)) in reply.json()["error"]["message"]


async def test_without_the_store_it_says_so(ask: Asked, tmp_path: Path) -> None:
    await ask.store.aclose()
    (tmp_path / "store.db").unlink()
    (tmp_path / "store.db").mkdir()

    reply = await ask()

    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
