"""Keys in the store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.store import schema
from app.store.database import Database
from app.store.sqlite import SqliteDatabase
from app.store.tables import keys
from app.store.tables.keys import KeysRefused, KeyTerms, StoredKey, holds_keys
from app.table import Budget, Key, KeyLimits

A, B, C = "a" * 64, "b" * 64, "c" * 64
OFFICE = KeyTerms(
    "office",
    "law",
    "admin",
    ("chat", "ollama/*"),
    2000.5,
    "batch",
    KeyLimits(600, 60_000, 20, Budget(20.5, "money", "month")),
)


async def test_a_key_is_read_as_it_was_made(database: Database) -> None:
    made = await keys.add(database, OFFICE, A, 1000.0)
    plain = await keys.add(database, KeyTerms("plain"), B, 1001.0)

    read = await keys.live(database)

    assert read == [made, plain]
    assert (made.terms, made.created, made.changed, made.revoked) == (OFFICE, 1000.0, 1000.0, None)
    assert [(secret.sha256, secret.ends) for secret in made.secrets] == [(A, None)]
    assert made.id != plain.id


async def test_relays_get_it_as_the_file_would_have_it(database: Database) -> None:
    made = await keys.add(database, OFFICE, A, 1000.0)
    plain = await keys.add(database, KeyTerms("plain"), B, 1000.0)

    assert made.table_keys() == [
        Key("office", A, ("chat", "ollama/*"), "admin", 2000.5, True, made.id, "law", OFFICE.limits)
    ]
    assert plain.table_keys() == [Key("plain", B, id=plain.id)]


async def test_two_live_keys_never_have_one_name(database: Database) -> None:
    first = await keys.add(database, KeyTerms("office"), A, 1.0)
    other = await keys.add(database, KeyTerms("other"), B, 1.0)

    with pytest.raises(KeysRefused, match="There is a key 'office' already") as again:
        await keys.add(database, KeyTerms("office"), C, 2.0)
    with pytest.raises(KeysRefused, match="'office'"):
        await keys.edit(database, "other", {"name": "office"}, 2.0)
    await keys.revoke(database, "office", 3.0)
    after = await keys.add(database, KeyTerms("office"), C, 4.0)

    assert again.value.code == "name_taken"
    assert after.id not in {first.id, other.id}


async def test_of_two_who_take_a_name_at_once_one_gets_it(database: Database) -> None:
    made = await asyncio.gather(
        *(keys.add(database, KeyTerms("office"), digit * 64, 1.0) for digit in "0123456789abcdef"),
        return_exceptions=True,
    )

    assert sum(isinstance(each, StoredKey) for each in made) == 1
    assert sum(isinstance(each, KeysRefused) for each in made) == 15
    assert len(await keys.live(database)) == 1


CHANGES: dict[str, tuple[dict[str, Any], KeyTerms]] = {
    "one limit": ({"rpm": 5}, KeyTerms("office", limits=KeyLimits(5, 10))),
    "no limit": ({"tpm": None}, KeyTerms("office")),
    "the rest": (
        {"name": "bureau", "team": "t", "models": ("m",), "expires": 5, "priority": "batch", "role": "admin"},
        KeyTerms("bureau", "t", "admin", ("m",), 5.0, "batch", KeyLimits(tpm=10)),
    ),
    "a budget": (
        {"budget": Budget(100.0, "tokens", "day")},
        KeyTerms("office", limits=KeyLimits(tpm=10, budget=Budget(100.0, "tokens", "day"))),
    ),
}


@pytest.mark.parametrize(("changes", "after"), CHANGES.values(), ids=CHANGES)
async def test_a_change_changes_what_it_names(database: Database, changes: dict[str, Any], after: KeyTerms) -> None:
    made = await keys.add(database, KeyTerms("office", limits=KeyLimits(tpm=10)), A, 1.0)

    before, told = await keys.edit(database, "office", changes, 2.0)

    assert before == made
    assert (told.terms, told.id, told.changed, told.secrets) == (after, made.id, 2.0, made.secrets)
    assert await keys.live(database) == [told]


async def test_a_key_that_was_rotated_has_both_secrets_until_the_old_one_ends(database: Database) -> None:
    made = await keys.add(database, KeyTerms("office", expires=150.0), A, 1.0)

    after = await keys.rotate(database, "office", B, 100.0, 60.0)
    again = await keys.rotate(database, made.id, C, 110.0, 3600.0)

    assert [(each.sha256, each.ends) for each in after.secrets] == [(A, 160.0), (B, None)]
    assert [(each.sha256, each.ends) for each in again.secrets] == [(A, 160.0), (B, 3710.0), (C, None)]
    assert [key.expires for key in again.table_keys()] == [150.0, 150.0, 150.0]
    assert {key.id for key in again.table_keys()} == {made.id}


async def test_without_a_grace_the_old_secret_is_gone_at_once(database: Database) -> None:
    await keys.add(database, KeyTerms("office"), A, 1.0)
    await keys.rotate(database, "office", B, 100.0, 60.0)

    after = await keys.rotate(database, "office", C, 110.0, 0.0)

    assert [each.sha256 for each in after.secrets] == [C]


async def test_a_secret_that_ended_long_ago_is_forgotten(database: Database) -> None:
    await keys.add(database, KeyTerms("office"), A, 1.0)
    await keys.rotate(database, "office", B, 100.0, 60.0)

    after = await keys.rotate(database, "office", C, 160.0 + keys.FORGET_S + 1, 60.0)

    assert [each.sha256 for each in after.secrets] == [B, C]


async def test_a_revoked_key_opens_nothing_and_is_listed_behind_the_others(database: Database) -> None:
    await keys.add(database, KeyTerms("a"), A, 1.0)
    await keys.add(database, KeyTerms("b"), B, 1.0)
    await keys.add(database, KeyTerms("c"), C, 1.0)

    await keys.revoke(database, "a", 5.0)
    ended = await keys.revoke(database, "b", 6.0)

    assert (ended.revoked, ended.table_keys()) == (6.0, [])
    assert [key.terms.name for key in await keys.live(database)] == ["c"]
    assert [(key.terms.name, key.revoked) for key in await keys.listed(database)] == [
        ("c", None),
        ("b", 6.0),
        ("a", 5.0),
    ]


async def test_what_is_not_there_is_refused_by_its_name(database: Database) -> None:
    made = await keys.add(database, KeyTerms("office"), A, 1.0)
    await keys.revoke(database, "office", 2.0)

    refusals = []
    for key in ("nobody", "office", made.id):
        with pytest.raises(KeysRefused) as refused:
            await keys.revoke(database, key, 3.0)
        refusals.append((refused.value.code, refused.value.message))

    assert refusals == [
        ("key_not_found", "There is no key 'nobody' in the store."),
        ("key_not_found", "The key 'office' was revoked."),
        ("key_not_found", "The key 'office' was revoked."),
    ]


async def test_each_change_counts_up_the_version_and_is_told(database: Database) -> None:
    topics: list[str] = []
    told = asyncio.Event()

    def hear(topic: str) -> None:
        topics.append(topic)
        told.set()

    database.listen(hear)
    before = await keys.version(database)
    await keys.add(database, KeyTerms("office"), A, 1.0)
    await keys.edit(database, "office", {"rpm": 1}, 1.0)
    await keys.rotate(database, "office", B, 1.0, 1.0)
    await keys.revoke(database, "office", 1.0)
    after = await keys.version(database)
    with pytest.raises(KeysRefused):
        await keys.revoke(database, "office", 1.0)
    async with asyncio.timeout(20):
        await told.wait()

    assert (before.version, before.made) == (0, 0)
    assert (after.version, after.made) == (4, 1)
    assert await keys.version(database) == after
    assert keys.TOPIC in topics or "" in topics


async def test_a_name_may_be_anything_that_a_person_is_called(database: Database) -> None:
    for number, name in enumerate(("Ö'); DROP TABLE keys;--", "a/b", "日本", "key_x")):
        await keys.add(database, KeyTerms(name), f"{number}" * 64, 1.0)

    assert {key.terms.name for key in await keys.live(database)} == {"Ö'); DROP TABLE keys;--", "a/b", "日本", "key_x"}


async def test_whether_a_file_holds_keys_is_seen_without_opening_the_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    nothing = holds_keys(path)
    database = SqliteDatabase(path, timeout_s=20.0)
    await schema.migrate(database)
    empty = holds_keys(path)
    await keys.add(database, KeyTerms("office"), A, 1.0)
    running = holds_keys(path)
    await keys.revoke(database, "office", 2.0)
    await database.aclose()
    (tmp_path / "other.db").write_bytes(b"no store at all")

    assert (nothing, empty, running, holds_keys(path)) == (False, False, True, True)
    assert not holds_keys(tmp_path / "other.db")


@pytest.mark.parametrize(
    "damage",
    ["models = 'chat'", "role = 'root'", "budget_amount = 5", "priority = 'first'", "rpm = 0", "tpm = -1"],
)
async def test_a_row_that_somebody_has_damaged_takes_no_other_key_along(database: Database, damage: str) -> None:
    await keys.add(database, KeyTerms("good"), "1" * 64, 1.0)
    bad = await keys.add(database, KeyTerms("bad"), "2" * 64, 1.0)
    await database.execute(f"UPDATE keys SET {damage} WHERE id = $1", bad.id)  # ours

    async with database.transaction() as statements:
        assert [key.terms.name for key in await keys.live(statements)] == ["good"]
    with pytest.raises(KeysRefused):
        await keys.edit(database, "bad", {"rpm": 5}, 2.0)
