"""Everything that gateways of a team share, as one part of the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import platform
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import structlog

from app import __version__
from app.config.model import Config
from app.store.opening import database_at
from app.store.tables import usage
from app.store.tables.audit import AuditTable
from app.store.tables.votes import RunTable, VoteTable
from app.supervisor.admin.schemas import StoreAnswer
from app.supervisor.comparisons.shared_runs import Runs
from app.supervisor.comparisons.shared_votes import Votes
from app.supervisor.comparisons.votes import VoteStore
from app.supervisor.json_store import JsonStore
from app.supervisor.metrics.team_series import TeamCounts
from app.supervisor.state_folder import StateFolder
from app.supervisor.team.audit import Audit
from app.supervisor.team.identity import Identity
from app.supervisor.team.key_orders import KeyOrders
from app.supervisor.team.keyring import Keyring
from app.supervisor.team.limits.allowances import TeamAllowances
from app.supervisor.team.team_store import TeamStore
from app.supervisor.team.usage.collector import UsageCollector
from app.usage.segments import FOLDER

log = structlog.get_logger()

# When a part that failed begins again.
AGAIN_S: Final = 1.0
# For the end of the gateway, beyond what its requests take.
PARTS_S: Final = 6.0
SIGN_OFF_S: Final = 2.0
# A gateway that begins has clients sent to it once it has agreed with its store, or after so long without it.
BEGIN_S: Final = 5.0
LOOK_S: Final = 0.05


class TeamPart(Protocol):
    """A part that has work of its own."""

    async def run(self) -> None:
        """Work until cancelled; a store that is away is no reason to end."""
        ...

    async def aclose(self) -> None:
        """Write down what is left, as far as the store is there. Nothing is raised."""
        ...


async def kept_up(name: str, run: Callable[[], Awaitable[None]], again_s: float = AGAIN_S) -> None:
    """Let a part work; where it fails, which is a mistake of ours, it begins again: requests need none of them."""
    while True:
        try:
            return await run()
        except Exception:
            log.exception("a part of the team failed; it begins again", part=name)
            await asyncio.sleep(again_s)


class Team:
    """Its parts are members; each knows the store and is told of the configuration by `follow`."""

    def __init__(self, config: Config, state: StateFolder, changed: Callable[[], object], *, may_be_open: bool) -> None:
        """`changed`: called when the relays' table is another one. `may_be_open`: without any key, everybody who can
        reach the gateway may use it.
        """
        self.name = platform.node() or "gateway"  # what people know this gateway by
        identity = Identity(state.identity, self.name)
        store = config.store
        database = database_at(store.secret_url, state.store, store.timeout_s)
        self._config, self._changed = config, changed
        self.is_beginning = store.url is not None  # others can serve limited keys already, this one not yet
        self.store = TeamStore(database, identity, __version__, store.forget_after_s, time.time, store.timeout_s)
        self.keyring = Keyring(
            self.store, state.keys, changed, may_be_open=may_be_open, may_hold_keys=state.store.exists()
        )
        self.keyring.follow(config)
        self.keys = KeyOrders(self.store, lambda: self._config, self.store.store_now, self.keyring.refresh)
        self.files: list[JsonStore[Any]] = [identity.file, self.keyring.file]
        self.audit = Audit(
            state.audit, AuditTable(self.store), time.time, self.name, lambda: self._config.audit.retention_days
        )
        self.votes = Votes(VoteStore(state.votes, time.time), VoteTable(self.store), time.time)
        self.runs = Runs(state.comparisons, RunTable(self.store), lambda: identity.id, is_alone=store.url is None)
        # In the order in which they are closed; the store comes last, by itself.
        self.allowances = TeamAllowances(self.store, recorded=usage.spent, unrecorded=self._unrecorded)
        self.allowances.assumed, self.allowances.is_recorded = store.assume_gateways, config.usage.records
        self.usage = UsageCollector(self.store, state.path / FOLDER, config.usage)
        self.parts: list[TeamPart] = [self.allowances, self.usage, self.keyring, self.votes, self.runs, self.audit]

    def __repr__(self) -> str:
        return f"<Team {self.store!r}>"

    def _unrecorded(self, key: str, unit: str) -> float:
        tokens, money = self.usage.waiting(key)
        return money if unit == "money" else tokens

    def follow(self, config: Config) -> None:
        """The configuration has been read again."""
        self._config = config
        self.keyring.follow(config)
        self.allowances.assumed, self.allowances.is_recorded = config.store.assume_gateways, config.usage.records
        self.usage.follow(config.usage)

    def health(self) -> StoreAnswer:
        """The store as `/health` shows it."""
        store = self.store
        return StoreAnswer(
            kind=store.dialect,
            place=store.place,
            is_up=store.is_up,
            reason=store.reason,
            down_s=round(time.time() - store.down_since, 1) if store.down_since is not None else None,
            gateway=store.id,
            gateways=store.gateways,
            names=tuple(sorted(store.census.names.values())) if store.census is not None else (),
            silent=store.silent,
            ahead_s=round(store.ahead_s, 3),
            usage_pending=self.usage.pending,
            usage_lost=self.usage.lost,
            keys_refused=self.keyring.stored.missing,
        )

    def counts(self) -> TeamCounts:
        """The parts as the metrics show them."""
        names = {key.name for key in self._config.keys} | {key.terms.name for key in self.keyring.keys}
        self.usage.totals.follow(names)
        return TeamCounts(
            is_store_up=self.store.is_up,
            store_seconds=copy.deepcopy(self.store.seconds),  # a thread renders them
            gateways=self.store.gateways,
            pending=self.usage.pending,
            lost=self.usage.lost,
            keys=self.usage.totals.shown(),
            limits=self.allowances.shares(),
        )

    async def open(self) -> None:
        """Reach the store, if that takes a second at most. TooNew where it is ahead of this gateway."""
        await self.store.open()
        await self.keyring.open()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kept_up("store", self.store.run), name="store")
            tasks.create_task(self._begin(), name="begin")
            for part in self.parts:
                tasks.create_task(kept_up(type(part).__name__, part.run), name=repr(part))

    async def _begin(self) -> None:
        if not self.is_beginning:
            return
        for _ in range(round(BEGIN_S / LOOK_S)):
            if self.store.is_up and self.allowances.is_known:
                break
            await asyncio.sleep(LOOK_S)
        self.is_beginning = False
        self._changed()

    async def aclose(self) -> None:
        """Bring in what is left, and sign off, as far as there is time: a store that hangs holds up no end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTS_S):
                for part in self.parts:
                    try:
                        await part.aclose()
                    except Exception:
                        log.exception("a part of the team did not end in order", part=type(part).__name__)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SIGN_OFF_S):
                await self.store.aclose()
