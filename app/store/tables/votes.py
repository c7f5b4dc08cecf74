"""Blind comparisons that wait for a vote, the votes, and the runs of `modelport compare`, so that all gateways on one
store tell the same.
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from app.store.database import Database, Row

_INSERT_VOTE: Final = (
    "INSERT INTO votes (id, at, models, winner, pair, key) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING"
)


class VoteRow(msgspec.Struct, frozen=True):
    """One vote. `at`: Unix seconds; `models` and `winner`: as JSON."""

    id: str
    at: int
    models: str
    winner: str
    pair: str | None
    key: str | None


class RunRow(msgspec.Struct, frozen=True):
    """One run. `gateway`: the id of that in whose state folder it lies; `stamp`: of the state in which its files were
    read; `created`: Unix seconds; `entry`: its `run.json`.
    """

    gateway: str
    id: str
    stamp: str
    created: int
    entry: str
    has_report: bool


class VoteTable:
    """Comparisons that wait, and votes. StoreDown where the store cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<VoteTable {self._database!r}>"

    async def seal(self, id_: str, at: float, body: str) -> None:
        """Keep what a comparison hides, until its vote. One that is there already stays."""
        await self._database.execute(
            "INSERT INTO sealed_comparisons (id, at, body) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING",
            *(id_, at, body),
        )

    async def sealed(self, id_: str, since: float) -> tuple[float, str] | None:
        """What it hides, with when it was sealed; None where none waits that is as young."""
        rows = await self._database.fetch(
            "SELECT at, body FROM sealed_comparisons WHERE id = $1 AND at >= $2", id_, since
        )
        return (rows[0]["at"], rows[0]["body"]) if rows else None

    async def forget(self, before: float) -> None:
        """Remove those that have waited for too long."""
        await self._database.execute("DELETE FROM sealed_comparisons WHERE at < $1", before)

    async def cast(self, vote: VoteRow) -> bool:
        """Store it; False where its comparison has had one."""
        async with self._database.transaction() as transaction:
            is_first = await transaction.execute(_INSERT_VOTE, *msgspec.structs.astuple(vote))
            await transaction.execute("DELETE FROM sealed_comparisons WHERE id = $1", vote.id)
        return is_first > 0

    async def add(self, votes: Iterable[VoteRow]) -> None:
        """Bring in votes from elsewhere; of a comparison that has had one the first counts."""
        await self._database.many(_INSERT_VOTE, [msgspec.structs.astuple(vote) for vote in votes])

    async def has_vote(self, id_: str) -> bool:
        """Whether a comparison has had its vote."""
        return bool(await self._database.fetch("SELECT id FROM votes WHERE id = $1", id_))

    async def read(self, most: int) -> list[VoteRow]:
        """The latest, oldest first."""
        sql = "SELECT id, at, models, winner, pair, key FROM votes ORDER BY at DESC, id DESC LIMIT $1"
        return [_vote(row) for row in reversed(await self._database.fetch_long(sql, most))]


def _vote(row: Row) -> VoteRow:
    return VoteRow(row["id"], row["at"], row["models"], row["winner"], row["pair"], row["key"])


class RunTable:
    """The runs of all gateways, with their reports. StoreDown where the store cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<RunTable {self._database!r}>"

    async def put(self, run: RunRow, reports: dict[str, bytes]) -> None:
        """Keep it as it is now, with the contents of its reports by their file names."""
        # They may have megabytes: neither the event loop nor a transaction waits for that.
        texts = {file: await asyncio.to_thread(packed, content) for file, content in reports.items()}
        async with self._database.transaction() as transaction:
            await transaction.execute(
                "INSERT INTO runs (gateway, id, stamp, created, entry, has_report) VALUES ($1, $2, $3, $4, $5, $6) "
                "ON CONFLICT (gateway, id) DO UPDATE SET stamp = excluded.stamp, created = excluded.created, "
                "entry = excluded.entry, has_report = excluded.has_report",
                *(run.gateway, run.id, run.stamp, run.created, run.entry, int(run.has_report)),
            )
            await transaction.execute("DELETE FROM run_reports WHERE gateway = $1 AND id = $2", run.gateway, run.id)
            for file, text in texts.items():
                await transaction.execute(
                    "INSERT INTO run_reports (gateway, id, file, content) VALUES ($1, $2, $3, $4)",
                    *(run.gateway, run.id, file, text),
                )

    async def remove(self, gateway: str, ids: Sequence[str]) -> None:
        """Those that are no longer in that gateway's folder."""
        async with self._database.transaction() as transaction:
            for id_ in sorted(ids):
                await transaction.execute("DELETE FROM runs WHERE gateway = $1 AND id = $2", gateway, id_)
                await transaction.execute("DELETE FROM run_reports WHERE gateway = $1 AND id = $2", gateway, id_)

    async def read(self, most: int) -> list[RunRow]:
        """The latest, newest first."""
        rows = await self._database.fetch_long("SELECT * FROM runs ORDER BY created DESC, id DESC LIMIT $1", most)
        return [
            RunRow(row["gateway"], row["id"], row["stamp"], row["created"], row["entry"], bool(row["has_report"]))
            for row in rows
        ]

    async def stamps(self, gateway: str) -> dict[str, str]:
        """The stamps of a gateway's runs, by their names."""
        rows = await self._database.fetch_long("SELECT id, stamp FROM runs WHERE gateway = $1", gateway)
        return {row["id"]: row["stamp"] for row in rows}

    async def one(self, id_: str) -> RunRow | None:
        """A run by its name; of two gateways' with one name the newer."""
        rows = await self._database.fetch(
            "SELECT * FROM runs WHERE id = $1 ORDER BY created DESC, gateway LIMIT 1", id_
        )
        if not rows:
            return None
        row = rows[0]
        return RunRow(row["gateway"], row["id"], row["stamp"], row["created"], row["entry"], bool(row["has_report"]))

    async def report(self, run: RunRow, file: str) -> bytes | None:
        """The content of one of its reports."""
        rows = await self._database.fetch_long(
            "SELECT content FROM run_reports WHERE gateway = $1 AND id = $2 AND file = $3", run.gateway, run.id, file
        )
        return await asyncio.to_thread(unpacked, rows[0]["content"]) if rows else None


def packed(content: bytes) -> str:
    """As a text, compressed: the store has columns for texts only."""
    return base64.b64encode(zlib.compress(content, 6)).decode()


def unpacked(text: str) -> bytes:
    """What `packed` was given."""
    return zlib.decompress(base64.b64decode(text))
