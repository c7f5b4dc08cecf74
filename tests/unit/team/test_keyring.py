"""Which keys of the store open something, whatever becomes of the store (app/supervisor/team/keyring.py)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog

from app.config.model import Config
from app.keys import StoredKeys
from app.store import schema
from app.store.database import Database
from app.store.sqlite import SqliteDatabase
from app.store.tables import keys
from app.store.tables.keys import KeysVersion, KeyTerms, Secret, StoredKey
from app.supervisor.team.identity import Identity
from app.supervisor.team.keyring import Keyring, Known, disown, good_keys
from app.supervisor.team.team_store import TeamStore
from app.table import Key

A, B = "a" * 64, "b" * 64
OFFICE = StoredKey("key_1", KeyTerms("office"), 1.0, 1.0, secrets=(Secret(A, 1.0),))
OPENS = (Key("office", A, id="key_1"),)
NOT_READ = "the store of keys could not be read yet"
TOO_OLD = "the store of keys has not answered for too long"


def known(made: int, age_s: float = 0.0, *, is_read: bool = True) -> Known:
    return Known(KeysVersion(1, made), (OFFICE,) if made else (), age_s, is_read)


# What is known, why the store cannot be read, whether others change it, whether there was one before → what opens.
SITUATIONS: dict[str, tuple[Known | None, str | None, bool, bool, StoredKeys]] = {
    "a store of our own that was never there": (None, "full", False, False, StoredKeys()),
    "a store of our own that cannot be read": (
        None,
        "broken",
        False,
        True,
        StoredKeys(is_closed=True, missing=NOT_READ),
    ),
    "a server that was never reached": (
        None,
        "away",
        True,
        False,
        StoredKeys(is_closed=True, missing=NOT_READ, is_unread=True),
    ),
    "a server without any key": (known(0), None, True, False, StoredKeys()),
    "a server whose only key was revoked": (
        Known(KeysVersion(2, 1), (), 0.0, True),
        None,
        True,
        False,
        StoredKeys(is_closed=True),
    ),
    "a server with a key": (known(1), None, True, False, StoredKeys(OPENS, is_closed=True)),
    "away for a while": (known(1, 60.0), "away", True, False, StoredKeys(OPENS, is_closed=True)),
    "away for a while, of the disk": (
        known(1, 60.0, is_read=False),
        "away",
        True,
        True,
        StoredKeys(OPENS, is_closed=True),
    ),
    "away for too long": (known(1, 61.0), "away", True, False, StoredKeys(is_closed=True, missing=TOO_OLD)),
    "away for a while without any key": (known(0, 60.0), "away", True, False, StoredKeys()),
    "away for too long without any key": (
        known(0, 61.0),
        "away",
        True,
        False,
        StoredKeys(is_closed=True, missing=TOO_OLD),
    ),
    "away, and the disk knows of no key": (
        known(0, 1.0, is_read=False),
        "away",
        True,
        True,
        StoredKeys(is_closed=True, missing=NOT_READ),
    ),
    "our own is broken, and never had a key": (known(0, 99.0, is_read=False), "broken", False, True, StoredKeys()),
    "our own is broken, and had one": (
        known(1, 99.0),
        "broken",
        False,
        True,
        StoredKeys(is_closed=True, missing=TOO_OLD),
    ),
}


@pytest.mark.parametrize(
    ("what", "reason", "is_shared", "may_hold_keys", "good"), SITUATIONS.values(), ids=SITUATIONS.keys()
)
def test_a_gateway_is_never_open_because_its_store_is_empty_or_away(
    what: Known | None, reason: str | None, is_shared: bool, may_hold_keys: bool, good: StoredKeys
) -> None:
    assert good_keys(what, reason, key_cache_s=60.0, is_shared=is_shared, may_hold_keys=may_hold_keys) == good


class Clock:
    """Both clocks, moved by the test."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000_000.0, 50.0

    def move(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


class Rig:
    """A keyring over a real SQLite file, which counts how often it tells of a change."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.clock = clock
        self.told = 0
        self.news = asyncio.Event()
        self.database: Database = SqliteDatabase(folder / "store.db", 20.0)
        identity = Identity(folder / "gateway.json", "here")
        self.store = TeamStore(self.database, identity, "1", 3600.0, lambda: clock.wall)
        self.ring = Keyring(
            self.store,
            folder / "keys.json",
            self._tell,
            may_be_open=True,
            may_hold_keys=(folder / "store.db").exists(),
            now=lambda: clock.wall,
            clock=lambda: clock.steady,
        )
        self.ring.follow(Config.model_validate({"store": {"key_cache_s": 100}}))

    def _tell(self) -> None:
        self.told += 1
        self.news.set()

    async def away(self) -> None:
        """The store does not answer any more."""
        self.store.is_up, self.store.reason = False, "the disk is gone"


async def opened(folder: Path, clock: Clock | None = None, *, is_up: bool = True) -> Rig:
    rig = Rig(folder, clock or Clock())
    if is_up:
        await rig.store.open()
    await rig.ring.open()
    return rig


async def test_what_changes_is_told_once_and_stays_as_it_is(tmp_path: Path) -> None:
    rig = await opened(tmp_path)
    running = asyncio.create_task(rig.ring.run())
    await asyncio.sleep(0)

    made = await keys.add(rig.store, KeyTerms("office"), A, 1.0)
    await rig.ring.refresh()
    await rig.ring.refresh()
    running.cancel()
    await rig.store.aclose()

    assert rig.ring.stored == StoredKeys(tuple(made.table_keys()), is_closed=True)
    assert (rig.told, rig.ring.has_keys) == (1, True)


async def test_a_change_by_somebody_else_is_seen_without_being_asked_for(tmp_path: Path) -> None:
    rig = await opened(tmp_path)
    running = asyncio.create_task(rig.ring.run())
    other = SqliteDatabase(tmp_path / "store.db", 20.0)

    await keys.add(other, KeyTerms("office"), A, 1.0)
    rig.ring._told(keys.TOPIC)  # as a server tells it
    async with asyncio.timeout(20):
        await rig.news.wait()
    running.cancel()
    await other.aclose()
    await rig.store.aclose()

    assert [key.name for key in rig.ring.stored.keys] == ["office"]


async def test_keys_of_a_store_that_is_away_are_refused_after_a_while_and_come_back(tmp_path: Path) -> None:
    rig = await opened(tmp_path)
    await keys.add(rig.store, KeyTerms("office"), A, 1.0)
    await rig.ring.refresh()
    await rig.away()

    rig.clock.move(100.0)
    await rig.ring.refresh()
    still = rig.ring.stored
    rig.clock.move(1.0)
    await rig.ring.refresh()
    refused = rig.ring.stored
    rig.store.is_up = True
    await rig.ring.refresh()
    again = rig.ring.stored
    await rig.store.aclose()

    assert [key.name for key in still.keys] == ["office"]
    assert refused == StoredKeys(is_closed=True, missing=TOO_OLD)
    assert again == still


@pytest.mark.parametrize(("later_s", "names"), [(90.0, ["office"]), (110.0, []), (-500.0, ["office"])])
async def test_what_the_disk_knows_is_as_old_as_it_is(tmp_path: Path, later_s: float, names: list[str]) -> None:
    before = await opened(tmp_path)
    await keys.add(before.store, KeyTerms("office"), A, 1.0)
    await before.ring.refresh()
    await before.store.aclose()
    clock = Clock()
    clock.wall += later_s

    after = await opened(tmp_path, clock, is_up=False)

    assert [key.name for key in after.ring.stored.keys] == names
    assert after.ring.stored.is_closed
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600


async def test_a_file_of_another_store_or_a_damaged_one_counts_for_nothing(tmp_path: Path) -> None:
    before = await opened(tmp_path)
    await keys.add(before.store, KeyTerms("office"), A, 1.0)
    await before.ring.refresh()
    await before.store.aclose()
    text = (tmp_path / "keys.json").read_text()

    seen = []
    for damaged in (text.replace("store.db", "other.db"), text[:-20], text.replace('"format":1', '"format":2')):
        (tmp_path / "keys.json").write_text(damaged)
        seen.append((await opened(tmp_path, is_up=False)).ring.stored)

    assert seen == [StoredKeys(is_closed=True, missing=NOT_READ)] * 3


async def test_where_other_machines_reach_it_a_gateway_is_closed_whatever_the_store_has(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Clock())
    ring = Keyring(rig.store, None, rig._tell, may_be_open=False, may_hold_keys=False)
    await schema.migrate(rig.database)
    await rig.store.open()

    await ring.open()
    await rig.store.aclose()

    assert ring.stored == StoredKeys(is_closed=True)


async def test_a_database_that_was_emptied_opens_no_gateway(tmp_path: Path) -> None:
    rig = await opened(tmp_path)
    made = await keys.add(rig.store, KeyTerms("office"), A, 1.0)
    await rig.ring.refresh()

    await rig.store.execute("DELETE FROM key_secrets")
    await rig.store.execute("DELETE FROM keys WHERE id = $1", made.id)
    await rig.store.execute("UPDATE key_changes SET version = 0")
    await rig.ring.refresh()
    emptied = rig.ring.stored
    await rig.store.aclose()
    after = await opened(tmp_path)
    await after.store.aclose()

    assert emptied == after.ring.stored == StoredKeys(is_closed=True)
    assert after.ring.has_keys


async def test_another_store_that_has_no_key_yet_opens_no_gateway(tmp_path: Path) -> None:
    before = await opened(tmp_path)
    await keys.add(before.store, KeyTerms("office"), A, 1.0)
    await before.ring.refresh()
    await before.store.aclose()
    text = (tmp_path / "keys.json").read_text()
    (tmp_path / "keys.json").write_text(text.replace("store.db", "other.db"))
    for name in ("store.db", "store.db-wal", "store.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)

    away = (await opened(tmp_path, is_up=False)).ring.stored
    rig = await opened(tmp_path)
    await rig.store.aclose()

    assert away == StoredKeys(is_closed=True, missing=NOT_READ)
    assert rig.ring.stored == StoredKeys(is_closed=True)


async def test_a_start_with_a_store_that_answers_says_nothing_of_keys_that_are_refused(tmp_path: Path) -> None:
    before = await opened(tmp_path)
    await keys.add(before.store, KeyTerms("office"), A, 1.0)
    await before.store.aclose()

    with structlog.testing.capture_logs() as said:
        after = await opened(tmp_path)
    await after.store.aclose()

    assert [each["event"] for each in said if each["log_level"] == "error"] == []
    assert [each["count"] for each in said if each["event"] == "keys of the store"] == [1]


async def test_keys_that_a_command_has_changed_are_gone_by_no_more_and_not_forgotten(tmp_path: Path) -> None:
    rig = await opened(tmp_path)
    await keys.add(rig.store, KeyTerms("office"), A, 1.0)
    await rig.ring.refresh()
    await rig.store.aclose()

    disown(tmp_path / "keys.json")
    disown(tmp_path / "none.json")
    away = (await opened(tmp_path, is_up=False)).ring
    for name in ("store.db", "store.db-wal", "store.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    emptied = await opened(tmp_path)
    await emptied.store.aclose()

    assert (away.keys, away.stored) == ((), StoredKeys(is_closed=True, missing=NOT_READ))
    assert emptied.ring.stored == StoredKeys(is_closed=True)
    assert not (tmp_path / "none.json").exists()
