"""Clients' keys in the store: only their digests are there. Every change counts up one version, which all who keep a
copy of the keys compare with theirs."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import structlog

from app.store.database import Database, Row, Statements
from app.table import Budget, Key, KeyLimits

log = structlog.get_logger()

# The topic of notifications: the keys have changed.
TOPIC: Final = "keys"
# Relays have all of them in memory and get them anew with every table, which takes them 20 ms then.
MOST_KEYS: Final = 5_000
# A replaced secret that has ended is forgotten after so long: until then what runs with it goes on (`revoked_streams`).
FORGET_S: Final = 7 * 86_400.0
# Of revoked keys the latest are listed.
MOST_REVOKED: Final = 500


class KeysRefused(Exception):
    """A change of the keys that is not possible. The message is a sentence; `code`: as administrators get it."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class KeyTerms(msgspec.Struct, frozen=True):
    """What a key opens and may use; times in Unix seconds, None: no end. Members as in app/table.py."""

    name: str
    team: str | None = None
    role: Literal["user", "admin"] = "user"
    models: tuple[str, ...] | None = None
    expires: float | None = None
    priority: Literal["interactive", "batch"] = "interactive"
    limits: KeyLimits = KeyLimits()


class Secret(msgspec.Struct, frozen=True):
    """One digest of a key. `ends`: Unix seconds, of one that was replaced."""

    sha256: str
    created: float
    ends: float | None = None


class StoredKey(msgspec.Struct, frozen=True):
    """A key of the store. `secrets`: oldest first; none of a key that was revoked (at `revoked`)."""

    id: str
    terms: KeyTerms
    created: float
    changed: float
    revoked: float | None = None
    secrets: tuple[Secret, ...] = ()

    def table_keys(self) -> list[Key]:
        """The key as relays know it, once for each of its secrets."""
        terms = self.terms
        limits = None if terms.limits == KeyLimits() else terms.limits
        return [
            Key(
                terms.name,
                secret.sha256,
                terms.models,
                terms.role,
                min((end for end in (terms.expires, secret.ends) if end is not None), default=None),
                is_batch=terms.priority == "batch",
                id=self.id,
                team=terms.team,
                limits=limits,
            )
            for secret in self.secrets
        ]


class KeysVersion(msgspec.Struct, frozen=True):
    """Which keys there are. `made`: how many there have ever been, those that were revoked among them."""

    version: int
    made: int


_COLUMNS: Final = (
    "k.id, k.name, k.team, k.role, k.models, k.expires, k.priority, k.rpm, k.tpm, k.max_parallel, k.budget_amount, "
    "k.budget_unit, k.budget_per, k.created, k.changed, k.revoked"
)


async def version(statements: Statements) -> KeysVersion:
    """The version of the keys now."""
    rows = await statements.fetch("SELECT version, (SELECT COUNT(*) FROM keys) AS made FROM key_changes WHERE id = 1")
    return KeysVersion(rows[0]["version"], rows[0]["made"]) if rows else KeysVersion(0, 0)


async def live(statements: Statements) -> list[StoredKey]:
    """The keys that were not revoked, by name."""
    return await _read(statements, "k.revoked IS NULL")


async def listed(statements: Statements) -> list[StoredKey]:
    """The keys by name, and behind them those that were revoked lately, the latest first."""
    ended = await _read(
        statements,
        "k.id IN (SELECT id FROM keys WHERE revoked IS NOT NULL ORDER BY revoked DESC LIMIT $1)",
        MOST_REVOKED,
    )
    return [*await live(statements), *sorted(ended, key=lambda key: -(key.revoked or 0.0))]


async def add(database: Database, terms: KeyTerms, sha256: str, now: float) -> StoredKey:
    """A new key with this digest. KeysRefused where the name is taken or there are too many."""
    async with _changing(database) as statements:
        await _check_name(statements, terms.name)
        await _check_digest(statements, sha256)
        rows = await statements.fetch("SELECT COUNT(*) AS number FROM keys WHERE revoked IS NULL")
        if rows[0]["number"] >= MOST_KEYS:
            raise KeysRefused(
                f"The store has {MOST_KEYS} keys, which is the most: revoke some first.", code="too_many_keys"
            )
        made = StoredKey(f"key_{secrets.token_hex(8)}", terms, now, now, secrets=(Secret(sha256, now),))
        await statements.execute(
            "INSERT INTO keys (id, name, team, role, models, expires, priority, rpm, tpm, max_parallel, budget_amount, "
            "budget_unit, budget_per, created, changed) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)",
            made.id,
            *_values(terms),
            now,
        )
        await statements.execute(
            "INSERT INTO key_secrets (sha256, key, created) VALUES ($1, $2, $3)", sha256, made.id, now
        )
    return made


async def edit(database: Database, key: str, changes: dict[str, Any], now: float) -> tuple[StoredKey, StoredKey]:
    """Change members of a key's terms; of its limits under their own names. Returns the key before and after.

    `key`: its id or its name. KeysRefused: there is no such key, or its new name is taken.
    """
    async with _changing(database) as statements:
        before = await _one(statements, key)
        terms = changed_terms(before.terms, changes)
        if terms.name != before.terms.name:
            await _check_name(statements, terms.name)
        after = msgspec.structs.replace(before, terms=terms, changed=now)
        await statements.execute(
            "UPDATE keys SET name = $2, team = $3, role = $4, models = $5, expires = $6, priority = $7, rpm = $8, "
            "tpm = $9, max_parallel = $10, budget_amount = $11, budget_unit = $12, budget_per = $13, changed = $14 "
            "WHERE id = $1",
            before.id,
            *_values(terms),
            now,
        )
    return before, after


async def rotate(database: Database, key: str, sha256: str, now: float, grace_s: float) -> StoredKey:
    """Give a key a new secret; the old ones work for `grace_s` seconds more. KeysRefused: there is no such key."""
    async with _changing(database) as statements:
        before = await _one(statements, key)
        await _check_digest(statements, sha256)
        if grace_s <= 0:
            await statements.execute("DELETE FROM key_secrets WHERE key = $1", before.id)
        else:
            await statements.execute("DELETE FROM key_secrets WHERE key = $1 AND ends < $2", before.id, now - FORGET_S)
            await statements.execute(
                "UPDATE key_secrets SET ends = $2 WHERE key = $1 AND (ends IS NULL OR ends > $2)",
                before.id,
                now + grace_s,
            )
        await statements.execute(
            "INSERT INTO key_secrets (sha256, key, created) VALUES ($1, $2, $3)", sha256, before.id, now
        )
        await statements.execute("UPDATE keys SET changed = $2 WHERE id = $1", before.id, now)
        return await _one(statements, before.id)


async def revoke(database: Database, key: str, now: float) -> StoredKey:
    """End a key for good. What it has used stays under its name. KeysRefused: there is no such key."""
    async with _changing(database) as statements:
        before = await _one(statements, key)
        await statements.execute("DELETE FROM key_secrets WHERE key = $1", before.id)
        await statements.execute("UPDATE keys SET revoked = $2, changed = $2 WHERE id = $1", before.id, now)
    return msgspec.structs.replace(before, revoked=now, changed=now, secrets=())


def changed_terms(terms: KeyTerms, changes: dict[str, Any]) -> KeyTerms:
    """The terms with these members changed; `rpm`, `tpm`, `max_parallel` and `budget` are those of the limits. Pure."""
    of_limits = {name: value for name, value in changes.items() if name in KeyLimits.__struct_fields__}
    rest = {name: value for name, value in changes.items() if name not in of_limits}
    limits = msgspec.structs.replace(terms.limits, **of_limits)
    return msgspec.structs.replace(terms, **rest, limits=limits)


def holds_keys(path: Path) -> bool:
    """Whether this file is a store (SQLite) with keys. False where it cannot be read. Blocks."""
    if not path.is_file():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=1.0)) as connection:
            return connection.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None
    except sqlite3.Error:
        return False


@contextlib.asynccontextmanager
async def _changing(database: Database) -> AsyncIterator[Statements]:
    """One change at a time, over all gateways; all of them are told once it is committed."""
    async with database.transaction() as statements:
        await statements.execute("UPDATE key_changes SET version = version + 1 WHERE id = 1")
        yield statements
        await statements.notify(TOPIC)


async def _check_name(statements: Statements, name: str) -> None:
    if await statements.fetch("SELECT id FROM keys WHERE name = $1 AND revoked IS NULL", name):
        raise KeysRefused(f"There is a key {name!r} already.", code="name_taken")


async def _check_digest(statements: Statements, sha256: str) -> None:
    if await statements.fetch("SELECT key FROM key_secrets WHERE sha256 = $1", sha256):
        raise KeysRefused("There is a key with this digest already.", code="name_taken")


async def _one(statements: Statements, key: str) -> StoredKey:
    """By its id, else the live one of that name."""
    rows = await _read(statements, "k.id = $1 OR (k.name = $1 AND k.revoked IS NULL)", key)
    ours = next((row for row in rows if row.id == key), rows[0] if rows else None)
    if ours is None:
        if await statements.fetch("SELECT id FROM keys WHERE name = $1", key):
            raise KeysRefused(f"The key {key!r} was revoked.", code="key_not_found")
        raise KeysRefused(f"There is no key {key!r} in the store.", code="key_not_found")
    if ours.revoked is not None:
        raise KeysRefused(f"The key {ours.terms.name!r} was revoked.", code="key_not_found")
    return ours


async def _read(statements: Statements, where: str, *args: str | int) -> list[StoredKey]:
    rows = await statements.fetch(
        f"SELECT {_COLUMNS}, s.sha256 AS sha256, s.created AS made, s.ends AS ends FROM keys k "  # noqa: S608  # ours
        f"LEFT JOIN key_secrets s ON s.key = k.id WHERE {where}",
        *args,
    )
    of_each: dict[str, tuple[Row, list[Secret]]] = {}
    for row in rows:
        secrets_ = of_each.setdefault(row["id"], (row, []))[1]
        if row["sha256"] is not None:
            secrets_.append(Secret(row["sha256"], row["made"], row["ends"]))
    keys = []
    for row, each in of_each.values():
        try:
            keys.append(_key(row, sorted(each, key=lambda secret: (secret.created, secret.sha256))))
        except msgspec.MsgspecError as exc:
            log.error("a key in the store is damaged and opens nothing", id=row["id"], reason=str(exc))
    return sorted(keys, key=lambda key: (key.terms.name, key.id))


def _key(row: Row, secrets_: Sequence[Secret]) -> StoredKey:
    """MsgspecError where somebody has written something into the row that no gateway would, and no relay takes."""
    budget = None
    if row["budget_amount"] is not None:
        budget = Budget(row["budget_amount"], row["budget_unit"], row["budget_per"])
    terms = KeyTerms(
        row["name"],
        row["team"],
        row["role"],
        None if row["models"] is None else msgspec.json.decode(row["models"], type=tuple[str, ...]),
        row["expires"],
        row["priority"],
        KeyLimits(row["rpm"], row["tpm"], row["max_parallel"], budget),
    )
    key = StoredKey(row["id"], terms, row["created"], row["changed"], row["revoked"], tuple(secrets_))
    limits = (row["rpm"], row["tpm"], row["max_parallel"], row["budget_amount"])
    if any(limit is not None and limit <= 0 for limit in limits):
        raise msgspec.ValidationError("a limit is not above 0")
    return msgspec.convert(msgspec.to_builtins(key), StoredKey)


def _values(terms: KeyTerms) -> tuple[str | int | float | None, ...]:
    limits, budget = terms.limits, terms.limits.budget
    return (
        terms.name,
        terms.team,
        terms.role,
        None if terms.models is None else msgspec.json.encode(terms.models).decode(),
        terms.expires,
        terms.priority,
        limits.rpm,
        limits.tpm,
        limits.max_parallel,
        *((None, None, None) if budget is None else (budget.amount, budget.unit, budget.per)),
    )
