"""The store as this gateway sees it: whether it is reachable, its clock, and how many gateways use it.

While it is not reachable every call fails at once instead of after a time limit; one task looks after it once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal

import structlog

from app.store import schema
from app.store.database import TIMEOUT_S, Database, Row, Statements, StoreDown, StoreError, Value
from app.store.tables import gateways
from app.store.tables.gateways import Census
from app.supervisor.metrics.bucket_counts import BucketCounts
from app.supervisor.metrics.team_series import STORE_BOUNDS
from app.supervisor.team.identity import Identity

log = structlog.get_logger()

BEAT_S: Final = 1.0
# How long a start waits for the store before it goes on without it.
START_S: Final = 1.0
# For so long after a connection the others have had no time to say that they are there: none of them is forgotten.
SETTLED_S: Final = 30.0
OPERATIONS: Final = ("select", "insert", "update", "delete", "transaction", "notify", "report")


class TeamStore:
    """A `Database` that knows how it is. `is_up`: its last heartbeat came through; `reason`: why not; `down_since`:
    Unix seconds. `silent`: how many of the gateways have not been heard of for some seconds. `seconds`: how long calls
    took, by what they did.
    """

    def __init__(
        self,
        database: Database,
        identity: Identity,
        version: str,
        forget_after_s: float,
        now: Callable[[], float],
        patience_s: float = TIMEOUT_S,
    ) -> None:
        self.is_up = False
        self.reason: str | None = "it has not been reached yet"
        self.down_since: float | None = now()
        self.silent = 0
        self.census: Census | None = None
        self.seconds: dict[str, BucketCounts] = {}
        self._database = database
        self._identity = identity
        self._version = version
        self._forget_after_s = forget_after_s
        self._patience_s = patience_s
        self._now = now
        self._schema: int | None = None
        self._ahead_s = 0.0
        self._connected_at: float | None = None
        self._has_failed = False
        self._look = asyncio.Event()
        self._on_change: list[Callable[[bool], object]] = []

    def __repr__(self) -> str:
        return f"<TeamStore {self.place} {'up' if self.is_up else 'down'} gateways={self.gateways}>"

    # -- how it is

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        """As the port says."""
        return self._database.dialect

    @property
    def place(self) -> str:
        """As the port says."""
        return self._database.place

    @property
    def trouble(self) -> str | None:
        """Why it is not reachable, once that has been tried; None while it is."""
        return self.reason if self._has_failed and not self.is_up else None

    @property
    def is_shared(self) -> bool:
        """Whether other gateways may use it."""
        return self.dialect != "sqlite"

    @property
    def id(self) -> str:
        """What this gateway is called in the store: the same for as long as there is its state folder."""
        return self._identity.id

    @property
    def gateways(self) -> int | None:
        """How many gateways there are, this one among them, as far as was ever known."""
        return self._identity.gateways if self.is_shared else 1

    @property
    def ahead_s(self) -> float:
        """By how much the store's clock is ahead of ours; negative: behind."""
        return self._ahead_s

    def store_now(self) -> float:
        """The store's own time now (Unix seconds), as its last heartbeat told it."""
        return self._now() + self._ahead_s

    def on_change(self, callback: Callable[[bool], object]) -> None:
        """Call `callback` with `is_up` whenever that changes."""
        self._on_change.append(callback)

    # -- its life

    async def open(self) -> None:
        """Reach it for the first time, if that takes a second at most. TooNew where it is ahead of this gateway."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self._beat(is_first=True)
        if not self.is_up:
            log.error(
                "the store is not reachable; the gateway starts without it and goes on trying",
                store=self.place,
                reason=self.reason,
            )

    async def run(self) -> None:
        """Look after it until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._look.wait()
                    await asyncio.sleep(BEAT_S / 10)  # whoever failed may be many
            self._look.clear()
            await self._beat()

    async def aclose(self) -> None:
        """Sign off, so that the others share out what was ours, and end the connections."""
        if self.is_up and self.is_shared:
            with contextlib.suppress(StoreError):
                await gateways.sign_off(self._database, self._identity.id, self._identity.life)
        self.is_up, self.reason = False, "this gateway is ending"
        await self._database.aclose()

    async def _beat(self, *, is_first: bool = False) -> None:
        try:
            if self._schema is None:
                before, after = await schema.migrate(self._database)
                self._schema = after
                if before != after and before + self.is_shared > 0:
                    log.info("the store has a new schema", store=self.place, before=before, after=after)
            began = self._now()
            with self._measured("heartbeat"):
                # Of several statements, each of which may take as long.
                async with asyncio.timeout(self._patience_s):
                    census = await self._signed_on()
            self._ahead_s = census.now - (began + self._now()) / 2
        except TimeoutError:
            if is_first:
                raise
            self._went_down(f"{self.place} did not answer within {self._patience_s:g} s")
        except StoreError as exc:
            if is_first and isinstance(exc, schema.TooNew):
                raise
            if not isinstance(exc, StoreDown):
                self._schema = None  # another database may have taken its place, or its tables are gone
            self._went_down(exc.reason if isinstance(exc, StoreDown) else str(exc))
        else:
            await self._came_up(census)

    async def _signed_on(self) -> Census:
        if not self.is_shared:
            return await gateways.embedded(self._database)
        identity = self._identity
        is_settled = self._connected_at is not None and time.monotonic() - self._connected_at > SETTLED_S
        forget_after_s = self._forget_after_s if is_settled else None
        has_signed_on = self.census is not None
        told = await gateways.beat(
            self._database, identity.id, identity.life, identity.name, self._version, forget_after_s, has_signed_on
        )
        if told is None:
            before = identity.id
            await asyncio.to_thread(identity.renew)
            log.warning(
                "another gateway uses our identity, as where a state folder was copied: this one takes a new one",
                before=before,
                now=identity.id,
            )
            told = await gateways.beat(self._database, identity.id, identity.life, identity.name, self._version)
            assert told is not None
        return told

    async def _came_up(self, census: Census) -> None:
        self.census, self.silent = census, census.silent
        if self.is_shared and census.count != self._identity.gateways:
            log.info("gateways at the store", count=census.count, silent=census.silent)
            await asyncio.to_thread(self._identity.know, census.count)
        if self.is_up:
            return
        down_s = self._now() - (self.down_since or self._now())
        self.is_up, self.reason, self.down_since = True, None, None
        self._connected_at = time.monotonic()
        if self.is_shared or self._has_failed:
            log.info("the store is reachable", store=self.place, gateways=self.gateways, down_s=round(down_s, 1))
        for callback in self._on_change:
            callback(True)

    def _went_down(self, reason: str) -> None:
        self.reason, self._has_failed = reason, True
        if not self.is_up:
            return
        self.is_up, self.down_since, self._connected_at = False, self._now(), None
        log.error(
            "the store is not reachable; requests go on with what was drawn and then with this gateway's share",
            store=self.place,
            reason=reason,
            gateways=self.gateways,
        )
        for callback in self._on_change:
            callback(False)

    # -- the port

    async def fetch(self, sql: str, *args: Value) -> Sequence[Row]:
        """As the port says."""
        with self._timed(sql):
            return await self._database.fetch(sql, *args)

    async def fetch_long(self, sql: str, *args: Value) -> Sequence[Row]:
        """As the port says."""
        with self._timed("report"):
            return await self._database.fetch_long(sql, *args)

    async def execute(self, sql: str, *args: Value) -> int:
        """As the port says."""
        with self._timed(sql):
            return await self._database.execute(sql, *args)

    async def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """As the port says."""
        with self._timed(sql):
            await self._database.many(sql, rows)

    async def notify(self, topic: str) -> None:
        """As the port says."""
        with self._timed("notify"):
            await self._database.notify(topic)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Statements]:
        """As the port says."""
        with self._timed("transaction"):
            async with self._database.transaction() as statements:
                yield statements

    def alone(self) -> AbstractAsyncContextManager[Statements]:
        """As the port says."""
        return self._database.alone()

    def listen(self, callback: Callable[[str], object]) -> None:
        """As the port says."""
        self._database.listen(callback)

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        if not self.is_up:
            reason = self.reason or "it is not reachable"
            raise StoreDown(reason if reason.startswith(self.place) else f"{self.place}: {reason}")
        verb = what.split(None, 1)[0].lower()
        try:
            with self._measured(verb if verb in OPERATIONS else "other"):
                yield
        except StoreDown:
            self._look.set()
            raise

    @contextlib.contextmanager
    def _measured(self, operation: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds.setdefault(operation, BucketCounts(STORE_BOUNDS)).observe(time.perf_counter() - began)
