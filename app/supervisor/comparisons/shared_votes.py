"""Votes of all gateways on one store. While the store is away, this gateway's own file takes them, and they are brought
in when it is back; so were those of versions without a store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

from app.errors import Problem
from app.ipc import SealedComparison
from app.store.database import StoreDown, StoreError
from app.store.tables.votes import VoteRow, VoteTable
from app.supervisor.comparisons.tally import MOST
from app.supervisor.comparisons.votes import (
    MOST_SEALED,
    OPEN_S,
    CastVote,
    VoteStore,
    already_voted,
    vote_about,
)

log = structlog.get_logger()

AGAIN_S: Final = 2.0
SWEEP_S: Final = 600.0
BATCH: Final = 500


class Votes:
    """What is sealed and what was voted. `table` None: nobody else has a part in it, and the file is all there is.

    What is sealed is in this process's memory at once, and in the store a moment later: a vote may come to any gateway.
    """

    def __init__(self, own: VoteStore, table: VoteTable | None, now: Callable[[], float]) -> None:
        self._own = own
        self._table = table
        self._now = now
        self._unsealed: deque[tuple[float, SealedComparison]] = deque(maxlen=MOST_SEALED)  # not in the store yet
        self._has_more = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Votes {self._own!r} unsealed={len(self._unsealed)}>"

    def seal(self, comparison: SealedComparison) -> None:
        """Wait for a vote about it."""
        self._own.seal(comparison)
        if self._table is not None:
            self._unsealed.append((self._now(), comparison))
            self._has_more.set()

    async def read(self) -> list[CastVote]:
        """The latest (as many as a tally counts), oldest first. StoreDown, or Problem (503) for the file."""
        own = await asyncio.to_thread(self._own.votes)
        if self._table is None:
            return own
        stored = [_vote(row) for row in await self._table.read(MOST)]
        known = {vote.id for vote in stored}
        return sorted([*stored, *(vote for vote in own if vote.id not in known)], key=lambda vote: vote.time)

    async def cast(self, id_: str, winner: Any, key: str | None) -> SealedComparison:
        """Keep a vote, and return what its comparison has hidden. Problem: 404, 409 and 400 as `VoteStore.cast` has
        them, 503 where neither the store nor the disk takes it.
        """
        if self._table is None:
            return await asyncio.to_thread(self._own.cast, id_, winner, key)
        if "\x00" in id_:  # in no text of PostgreSQL's, and in no id of ours
            vote_about(None, winner, key, self._now())
        if await asyncio.to_thread(self._own.has_vote, id_):
            raise already_voted()
        try:
            comparison = self._own.waiting(id_) or await self._sealed_elsewhere(id_)
            if comparison is None and await self._table.has_vote(id_):
                raise already_voted()
            vote = vote_about(comparison, winner, key, self._now())
            is_first = await self._table.cast(_row(vote))
        except StoreDown as exc:
            if self._own.waiting(id_) is None:  # another gateway may know it
                raise Problem(503, "votes_unusable", f"The store cannot be reached ({exc}); vote again later.") from exc
            opened = await asyncio.to_thread(self._own.cast, id_, winner, key)
            self._has_more.set()
            return opened
        self._own.opened(id_)
        if not is_first:
            raise already_voted()
        assert comparison is not None  # else there is no vote
        return comparison

    async def run(self) -> None:
        """Bring into the store what only this gateway has, until cancelled."""
        swept_at = 0.0
        while self._table is not None:
            self._has_more.clear()
            try:
                await self._bring(self._table)
                if self._now() - swept_at >= SWEEP_S:
                    swept_at = self._now()
                    await self._table.forget(self._now() - OPEN_S)
            except StoreDown:
                await asyncio.sleep(AGAIN_S)
                continue
            except (StoreError, Problem) as exc:
                log.error("votes not brought into the store", reason=str(exc))
                await asyncio.sleep(SWEEP_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await self._has_more.wait()

    async def aclose(self) -> None:
        """Bring in what is sealed, as far as the store is there: its votes may come to other gateways."""
        if self._table is not None:
            with contextlib.suppress(StoreError, Problem):
                await self._bring(self._table)

    async def _bring(self, table: VoteTable) -> None:
        while self._unsealed:
            at, comparison = self._unsealed[0]
            # One that was opened meanwhile must not wait once more.
            if self._own.waiting(comparison.id) is not None:
                await table.seal(comparison.id, at, msgspec.json.encode(comparison).decode())
            self._unsealed.popleft()
        own = await asyncio.to_thread(self._own.votes)
        for start in range(0, len(own), BATCH):
            await table.add(_row(vote) for vote in own[start : start + BATCH])
        if not own:
            return
        if await asyncio.to_thread(self._own.set_aside, len(own)):
            log.info("votes brought into the store", votes=len(own))

    async def _sealed_elsewhere(self, id_: str) -> SealedComparison | None:
        assert self._table is not None
        sealed = await self._table.sealed(id_, self._now() - OPEN_S)
        return msgspec.json.decode(sealed[1], type=SealedComparison) if sealed is not None else None


def _row(vote: CastVote) -> VoteRow:
    models, winner = (msgspec.json.encode(value).decode() for value in (vote.models, vote.winner))
    return VoteRow(vote.id, vote.time, models, winner, vote.pair, vote.key)


def _vote(row: VoteRow) -> CastVote:
    return CastVote(row.id, row.at, msgspec.json.decode(row.models), msgspec.json.decode(row.winner), row.pair, row.key)
