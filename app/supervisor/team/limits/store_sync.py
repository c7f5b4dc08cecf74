"""This gateway and the others agree, by way of the store, on who holds and has spent how much of which key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from app.store.database import Database, Statements
from app.store.tables import limits
from app.store.tables.gateways import SILENT_S
from app.store.tables.limits import HELD, AmountRow, Peers
from app.supervisor.team.limits.key_account import KeyAccount, Limited, Others
from app.supervisor.team.limits.ledger import Ledger
from app.supervisor.team.limits.spans import Rolling
from app.table import WINDOW_S

# Slots that are so old are removed by and by.
KEPT_S: Final = 300.0
SWEEP_S: Final = 60.0
# So often what is known is noted of all keys, and not only of those that something is asked of.
ALL_S: Final = 0.5
# And so often what is recorded is read of all keys with a budget.
RECORDED_S: Final = 2.0
# That takes no more than this share of the time, and where it does not come through it is tried so seldom.
RECORDED_SHARE: Final = 0.05
RECORDED_LATEST_S: Final = 60.0
# What the store says is held, where nobody heard whether it was written.
NOT_KNOWN: Final = -1.0

# What the records of usage say that these keys (None: all) have spent since a time, as (tokens, money).
Recorded: TypeAlias = Callable[[Statements, float, Sequence[str] | None], Awaitable[Mapping[str, tuple[float, float]]]]
# And what it has spent by records of this gateway that are not there yet.
Unrecorded: TypeAlias = Callable[[str, str], float]


class SharedDatabase(Database, Protocol):
    """The store as one of its gateways sees it."""

    @property
    def id(self) -> str:
        """What this gateway is called in there."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other gateways may use it."""
        ...

    @property
    def is_up(self) -> bool:
        """Whether it answers, as far as is known."""
        ...

    @property
    def gateways(self) -> int | None:
        """How many gateways there are, as far as was ever known."""
        ...

    def store_now(self) -> float:
        """Its own time, as far as that is known."""
        ...

    def on_change(self, callback: Callable[[bool], object]) -> None:
        """Have it called with `is_up` whenever that changes."""
        ...


class StoreSync:
    """`others`: who else there is, as the store said it last; `known_at`: when that was, None where it was never heard.
    `clock`: any that does not jump; `ahead_s`: by how much the store's clock is ahead of it.
    """

    def __init__(
        self,
        store: SharedDatabase,
        accounts: Mapping[str, KeyAccount],
        clock: Callable[[], float],
        recorded: Recorded,
        unrecorded: Unrecorded,
    ) -> None:
        self.others = Others(store.gateways)
        self.known_at: float | None = None
        self.ahead_s = store.store_now() - clock()
        self._store = store
        self._accounts = accounts
        self._clock = clock
        self._recorded = recorded
        self._unrecorded = unrecorded
        self._since, self._id = 0.0, store.id
        self._swept_at = 0.0
        self._all_at = self._recorded_at = -RECORDED_S
        self._recorded_every_s = RECORDED_S

    def __repr__(self) -> str:
        return f"<StoreSync others={self.others}>"

    def now(self) -> float:
        """The store's time, as far as it is known."""
        return self._clock() + self.ahead_s

    def forget(self) -> None:
        """Read everything the next time, since there are new limits."""
        self._since = 0.0

    def linger(self, account: KeyAccount, *, is_recorded: bool = False) -> None:
        """Keep what of its budget is spent and not recorded yet."""
        ledger = account.ledgers.get("budget")
        if ledger is not None:
            unrecorded = self._unrecorded(account.key, ledger.kind.partition("/")[0])
            account.linger(unrecorded, self.now(), is_recorded=is_recorded)

    async def agree(self, batch: Sequence[KeyAccount]) -> None:
        """Write what was spent of these keys, read what others have, hold what is needed. StoreError: nothing is sure
        to have happened. Nothing of what is asked of the accounts meanwhile is lost.
        """
        told: list[tuple[Ledger, dict[int, float]]] = []
        raised: list[tuple[Ledger, float]] = []
        is_for_all = self._clock() - self._all_at >= ALL_S
        says = is_for_all and self._store.is_shared
        says = says and not any(each.is_beyond for each in self._accounts.values() if each not in batch)
        try:
            async with self._store.transaction() as statements:
                if batch:
                    await limits.lock(statements, [account.key for account in batch])
                    await self._remember(statements, batch)
                await limits.write(statements, self._spent(batch, told))
                peers = await limits.peers(statements)
                self._heard(peers)
                oldest = Rolling().slot(peers.now - WINDOW_S - 1)
                rows = await limits.changes(statements, self._store.id, self._since, oldest)
                self._apply(rows, await self._budgets(statements, batch))
                self._forget(self._accounts.values() if is_for_all else batch, peers)
                await limits.write(statements, self._held(batch, raised))
                if says:
                    await limits.say(statements, self._store.id)
        except BaseException:
            for ledger, slots in told:
                ledger.unsaid |= slots.keys()
                ledger.stored_held = NOT_KNOWN
            raise
        for ledger, more in raised:
            ledger.held += more
        for account in batch:
            for ledger in account.ledgers.values():
                ledger.agreed(peers.now)
        if is_for_all:
            self._all_at = self._clock()
            for ledger in (each for account in self._accounts.values() for each in account.ledgers.values()):
                if ledger.is_known:
                    ledger.heard(peers.now)
        self._since = peers.now
        if says or not self._store.is_shared:
            self.known_at = self.now()

    def is_renamed(self) -> bool:
        """Whether this gateway has another name from now on, since its own is somebody else's: it tells all again."""
        if self._id == self._store.id:
            return False
        self._id = self._store.id
        self.forget()
        for ledger in (each for account in self._accounts.values() for each in account.ledgers.values()):
            ledger.unsaid |= ledger.own.keys()
            ledger.stored_held = NOT_KNOWN
        return True

    async def sweep(self) -> None:
        """Remove what nobody counts any more, now and then."""
        now = self.now()
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            await limits.sweep(self._store, Rolling().slot(now - KEPT_S))

    # -- the steps of it

    async def _remember(self, statements: Statements, batch: Iterable[KeyAccount]) -> None:
        """What an earlier life of this gateway has spent. What it held may have been spent, too."""
        for account in batch:
            news = {ledger.kind: ledger for ledger in account.ledgers.values() if not ledger.is_known}
            if not news:
                continue
            for row in await limits.own(statements, self._store.id, account.key):
                ledger = news.get(row.kind)
                if ledger is not None and ledger.span.has_slots:
                    slot = ledger.span.slot(self.now()) if row.slot == HELD else row.slot
                    if row.slot != HELD or row.amount > 0:
                        ledger.recall(slot, row.amount)

    def _spent(self, batch: Iterable[KeyAccount], told: list[tuple[Ledger, dict[int, float]]]) -> list[AmountRow]:
        rows = []
        for account in batch:
            for ledger in account.ledgers.values():
                slots = {slot: ledger.own.get(slot, 0.0) for slot in ledger.unsaid}
                ledger.unsaid = set()
                told.append((ledger, slots))
                rows += [self._row(account, ledger, slot, slots[slot]) for slot in sorted(slots)]
        return rows

    def _row(self, account: KeyAccount, ledger: Ledger, slot: int, amount: float) -> AmountRow:
        return AmountRow(account.key, ledger.kind, self._store.id, slot, float(amount))

    def _heard(self, peers: Peers) -> None:
        self.ahead_s = peers.now - self._clock()
        said = peers.said if self._store.is_shared else {}
        silent = [
            (gateway, at)
            for gateway, at in said.items()
            if gateway != self._store.id and at is not None and at < peers.now - SILENT_S
        ]
        self.others = Others(len(said.keys() | {self._store.id}), tuple(silent))

    async def _budgets(self, statements: Statements, batch: Sequence[KeyAccount]) -> list[KeyAccount]:
        """Read what is recorded of the keys of the batch, now and then of all. Returns of which."""
        began = self._clock()
        is_of_all = began - self._recorded_at >= self._recorded_every_s
        if is_of_all:
            self._recorded_at = began
            self._recorded_every_s = min(2 * self._recorded_every_s, RECORDED_LATEST_S)
        accounts = [each for each in (self._accounts.values() if is_of_all else batch) if "budget" in each.ledgers]
        periods: dict[int, list[KeyAccount]] = {}
        for account in accounts:
            periods.setdefault(account.ledgers["budget"].span.slot(self.now()), []).append(account)
        told = []
        for begin, of_period in periods.items():
            keys = None if is_of_all else [account.key for account in of_period]
            amounts = await self._recorded(statements, float(begin), keys)
            for account in of_period:
                tokens, money = amounts.get(account.key, (0.0, 0.0))
                ledger = account.ledgers["budget"]
                ledger.recorded = (begin, tokens if ledger.kind.startswith("tokens") else money)
                told.append(account)
        if is_of_all:
            self._recorded_at = self._clock()
            self._recorded_every_s = max(RECORDED_S, (self._recorded_at - began) / RECORDED_SHARE)
        return told

    def _apply(self, rows: Iterable[AmountRow], recorded: Iterable[KeyAccount]) -> None:
        for row in rows:
            account = self._accounts.get(row.key)
            for ledger in account.ledgers.values() if account is not None else ():
                if ledger.kind != row.kind:
                    continue
                if row.slot == HELD:
                    ledger.hear_held(row.gateway, row.amount)
                elif ledger.span.has_slots:
                    ledger.hear(row.gateway, row.slot, row.amount, self.now())
        for account in recorded:
            self.linger(account, is_recorded=True)

    def _forget(self, accounts: Iterable[KeyAccount], peers: Peers) -> None:
        now, there = self.now(), peers.said if self._store.is_shared else {}
        for account in accounts:
            for ledger in account.ledgers.values():
                ledger.forget(now)
                # Nobody waits for what one held that has signed off or is not counted any more.
                ledger.others_held = {each: held for each, held in ledger.others_held.items() if each in there}

    def _held(self, batch: Iterable[KeyAccount], raised: list[tuple[Ledger, float]]) -> list[AmountRow]:
        """What is going to be held. Less is so at once, as it may be written without our hearing of it."""
        rows = []
        for account in batch:
            for ledger in account.ledgers.values():
                ledger.unknown.clear()
            wished: dict[Limited, float] = account.wished(self.now(), self.others)
            for name, held in wished.items():
                ledger = account.ledgers[name]
                if held > ledger.held:
                    raised.append((ledger, held - ledger.held))
                ledger.held = min(held, ledger.held)
                ledger.stored_held = held
                rows.append(self._row(account, ledger, HELD, held))
        return rows
