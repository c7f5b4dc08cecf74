"""The tables of the store, as numbered steps. A store has the steps up to the version that it says.

A step is never changed once a version of the gateway with it was released: a later one mends it. A step only adds, so
that gateways of the version before go on with a store that has it: rolling updates depend on that. What is to go, goes
one version later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.store.database import Database, Statements, StoreError
from app.store.tables import usage


@dataclass(frozen=True, slots=True)
class SchemaStep:
    """One change of the schema. `statements` are carried out one by one, in one transaction with all other steps."""

    number: int
    name: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableOf:
    """A table. `key`: the columns of its primary key. `is_copied`: it goes along when a store is copied to another;
    what only means something to gateways that run does not. `sums`: columns that only grow; where two stores differ in
    one, the larger is right. `completed_by`: what is carried out once the rows of all tables have been copied.
    `at_once`: the most rows that are copied together. `of_key`: the column with a key's id, where rows of keys that the
    target has changed later stay as they are there: what was revoked does not come back.
    """

    name: str
    key: tuple[str, ...]
    is_copied: bool = True
    sums: tuple[str, ...] = ()
    completed_by: str = ""
    at_once: int = 1000
    of_key: str = ""


STEPS: Final[tuple[SchemaStep, ...]] = (
    SchemaStep(
        1,
        "gateways",
        (
            "CREATE TABLE gateways (id TEXT PRIMARY KEY, life TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,"
            " started DOUBLE PRECISION NOT NULL, seen DOUBLE PRECISION NOT NULL)",
            "CREATE TABLE copies (source TEXT NOT NULL, name TEXT NOT NULL, position TEXT NOT NULL,"
            " rows BIGINT NOT NULL, PRIMARY KEY (source, name))",
        ),
    ),
    SchemaStep(
        2,
        "keys",
        (
            "CREATE TABLE key_changes (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)",
            "INSERT INTO key_changes (id, version) VALUES (1, 0)",
            "CREATE TABLE keys (id TEXT PRIMARY KEY, name TEXT NOT NULL, team TEXT, role TEXT NOT NULL, models TEXT,"
            " expires DOUBLE PRECISION, priority TEXT NOT NULL, rpm BIGINT, tpm BIGINT, max_parallel BIGINT,"
            " budget_amount DOUBLE PRECISION, budget_unit TEXT, budget_per TEXT, created DOUBLE PRECISION NOT NULL,"
            " changed DOUBLE PRECISION NOT NULL, revoked DOUBLE PRECISION)",
            # One that was revoked leaves its name to the next.
            "CREATE UNIQUE INDEX keys_by_name ON keys (name) WHERE revoked IS NULL",
            "CREATE TABLE key_secrets (sha256 TEXT PRIMARY KEY, key TEXT NOT NULL, created DOUBLE PRECISION NOT NULL,"
            " ends DOUBLE PRECISION)",
            "CREATE INDEX key_secrets_by_key ON key_secrets (key)",
        ),
    ),
    SchemaStep(
        3,
        "limits",
        (
            "CREATE TABLE limit_keys (key TEXT PRIMARY KEY, turns BIGINT NOT NULL)",
            "CREATE TABLE limit_amounts (key TEXT NOT NULL, kind TEXT NOT NULL, gateway TEXT NOT NULL,"
            " slot BIGINT NOT NULL, amount DOUBLE PRECISION NOT NULL, changed DOUBLE PRECISION NOT NULL,"
            " PRIMARY KEY (key, kind, gateway, slot))",
            "CREATE INDEX limit_amounts_changed ON limit_amounts (changed)",
            "CREATE TABLE limit_gateways (gateway TEXT PRIMARY KEY, said DOUBLE PRECISION NOT NULL)",
        ),
    ),
    SchemaStep(4, "usage", usage.TABLES),
    SchemaStep(
        5,
        "audit",
        (
            "CREATE TABLE audit (id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, actor TEXT NOT NULL,"
            " via TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL, status BIGINT NOT NULL,"
            " details TEXT NOT NULL, gateway TEXT NOT NULL, request_id TEXT NOT NULL, address TEXT NOT NULL)",
            "CREATE INDEX audit_by_time ON audit (at, id)",
        ),
    ),
    SchemaStep(
        6,
        "votes and runs",
        (
            "CREATE TABLE sealed_comparisons (id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, body TEXT NOT NULL)",
            "CREATE TABLE votes (id TEXT PRIMARY KEY, at BIGINT NOT NULL, models TEXT NOT NULL, winner TEXT NOT NULL,"
            " pair TEXT, key TEXT)",
            "CREATE INDEX votes_by_time ON votes (at, id)",
            "CREATE TABLE runs (gateway TEXT NOT NULL, id TEXT NOT NULL, stamp TEXT NOT NULL, created BIGINT NOT NULL,"
            " entry TEXT NOT NULL, has_report BIGINT NOT NULL, PRIMARY KEY (gateway, id))",
            "CREATE TABLE run_reports (gateway TEXT NOT NULL, id TEXT NOT NULL, file TEXT NOT NULL,"
            " content TEXT NOT NULL, PRIMARY KEY (gateway, id, file))",
        ),
    ),
)
# The tables in the order in which a transaction may lock their rows.
LOCK_ORDER: Final[tuple[TableOf, ...]] = (
    TableOf("gateways", ("id",), is_copied=False),
    TableOf("copies", ("source", "name"), is_copied=False),
    # Whoever keeps keys looks them up again: there are others.
    TableOf("key_changes", ("id",), sums=("version",), completed_by="UPDATE key_changes SET version = version + 1"),
    TableOf("keys", ("id",), of_key="id"),
    TableOf("key_secrets", ("sha256",), of_key="key"),
    TableOf("limit_keys", ("key",), is_copied=False),
    TableOf("limit_amounts", ("key", "kind", "gateway", "slot"), is_copied=False),
    TableOf("limit_gateways", ("gateway",), is_copied=False),
    TableOf("usage_upkeep", ("task",), is_copied=False),
    TableOf("usage_records", ("id",)),
    TableOf("usage_days", ("day", "key", "key_name", "team", "model"), sums=usage.SUMS, completed_by=usage.COUNT_AGAIN),
    TableOf("audit", ("id",)),
    TableOf("votes", ("id",)),
    TableOf("sealed_comparisons", ("id",)),
    TableOf("runs", ("gateway", "id")),
    TableOf("run_reports", ("gateway", "id", "file"), at_once=4),  # megabytes each
)
VERSION: Final = max(step.number for step in STEPS)


class TooNew(StoreError):
    """The store has steps that this gateway does not know."""


async def version(statements: Statements, dialect: str) -> int:
    """The version of the store's schema; 0 where it has none yet."""
    return max(await _steps(statements, dialect), default=0)


async def _steps(statements: Statements, dialect: str) -> set[int]:
    seen = await statements.fetch(
        "SELECT 1 AS one FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'"
        if dialect == "sqlite"
        else "SELECT 1 AS one FROM pg_catalog.pg_class WHERE oid = to_regclass('schema_version')"
    )
    if not seen:
        return set()
    return {int(row["version"]) for row in await statements.fetch("SELECT version FROM schema_version")}


async def migrate(database: Database) -> tuple[int, int]:
    """Bring the schema to our version. Returns the version before and after. TooNew where the store is ahead of us.

    Several gateways may do so at once: each takes the steps that the others have left.
    """
    steps = await _steps(database, database.dialect)
    if not _missing(database, steps):
        return VERSION, VERSION
    async with database.alone() as statements:
        steps = await _steps(statements, database.dialect)
        if not steps:
            await statements.execute(
                "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, name TEXT NOT NULL)"
            )
        for step in _missing(database, steps):
            for sql in step.statements:
                await statements.execute(sql)
            await statements.execute(
                "INSERT INTO schema_version (version, name) VALUES ($1, $2)", step.number, step.name
            )
    return max(steps, default=0), VERSION


async def check(database: Database) -> None:
    """StoreError where the store does not have our version: whoever only reads leaves its tables as they are."""
    steps = await _steps(database, database.dialect)
    if _missing(database, steps):
        has = f"schema {max(steps)}, and this command needs {VERSION}" if steps else "no tables yet"
        raise StoreError(f"the store {database.place} has {has}: start a gateway, or `modelport store migrate`")


def _missing(database: Database, steps: set[int]) -> list[SchemaStep]:
    """Those of our steps that the store does not have, in their order. TooNew where it is ahead of us."""
    if max(steps, default=0) > VERSION:
        raise too_new(database, max(steps))
    return sorted((step for step in STEPS if step.number not in steps), key=lambda step: step.number)


def too_new(database: Database, version: int) -> TooNew:
    """The error of a store with this version, which is ahead of us."""
    return TooNew(
        f"the store {database.place} has schema {version}, and this gateway knows schemas up to {VERSION}: "
        "update the gateway"
    )
