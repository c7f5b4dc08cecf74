"""What relays may spend of keys' limits, replied from memory; in the background it is agreed with the other gateways.

No reply waits for the store for longer than SLOW_S. A gateway that has the store to itself does not wait at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import structlog

from app.ipc import NOTHING, Allowance, AllowanceWanted, Spent
from app.store.database import Statements, StoreDown, StoreError
from app.store.tables.gateways import SILENT_S
from app.supervisor.team.limits.key_account import KeyAccount, Others, Waiter
from app.supervisor.team.limits.store_sync import Recorded, SharedDatabase, StoreSync, Unrecorded
from app.table import Key

log = structlog.get_logger()

# A request waits no longer for the store.
SLOW_S: Final = 0.25
# What is known is that fresh where a request is refused without another look.
FRESH_S: Final = 0.2
# How often is looked whether there is something to agree on, and how often what was spent is written.
LOOK_S: Final = 0.1
WRITE_S: Final = 0.5
# The others hear at least so often that this gateway is there, and it of them.
SAY_S: Final = 0.6
# When to ask again where the store did not answer in time, and after a mistake of ours.
AGAIN_S: Final = 1.0
# Keys of one transaction, and how long it may take.
BATCH: Final = 50
AGREE_S: Final = 4.0
SLOW: Final = "The store of limits did not answer in time."
GAP: Final = "The store of limits is not reachable; this gateway goes on with its share of them in a moment."

Reply: TypeAlias = Callable[[Allowance], object]


async def nothing_recorded(
    _statements: Statements, _since: float, _keys: Sequence[str] | None
) -> Mapping[str, tuple[float, float]]:
    """Where no usage is recorded."""
    return {}


class TeamAllowances:
    """`unrecorded`: of a key (its id), what is in records of usage that the store does not have yet, in `tokens` or
    `money`. `assumed`: how many gateways there are where that was never known; None: whoever has limits is refused
    then. `is_recorded`: usage is recorded; set before `follow`.
    """

    def __init__(
        self,
        store: SharedDatabase,
        *,
        recorded: Recorded = nothing_recorded,
        unrecorded: Unrecorded = lambda _key, _unit: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.accounts: dict[str, KeyAccount] = {}
        self.assumed: int | None = None
        self.is_recorded = True
        self._store = store
        self._clock = clock
        self._sync = StoreSync(store, self.accounts, clock, recorded, unrecorded)
        self._busy: set[KeyAccount] = set()  # of which there may be something to agree on
        self._agreed_at: dict[str, float] = {}
        self._blind: dict[tuple[str, int], Reply] = {}  # of a key and a relay: refused without the store
        self._said_at = -SILENT_S
        self._keys: tuple[Key, ...] = ()
        self._names: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._was_alone = False
        self._trouble: str | None = None
        self._asked_at: float | None = None  # since when the store is asked for what has not come
        store.on_change(lambda _is_up: self._wake.set())

    def __repr__(self) -> str:
        return f"<TeamAllowances keys={len(self.accounts)} {self._sync!r}>"

    # -- for the relay server

    def follow(self, keys: tuple[Key, ...]) -> None:
        """The keys as the relays know them from now on."""
        if keys == self._keys:
            return
        self._keys, now = keys, self._sync.now()
        limited = {key.id or key.name: key.limits for key in keys if key.limits is not None}
        self._names = {key.id or key.name: key.name for key in keys}
        for id in self.accounts.keys() - limited.keys():
            self._busy.discard(self.accounts[id])
            for waiter in self.accounts.pop(id).waiters:
                waiter.reply(Allowance(waiter.seq, id, waiter.needs))
        is_new = False
        for id, limits in limited.items():
            account = self.accounts.get(id) or KeyAccount(id)
            self.accounts[id] = account
            account.is_recorded = self.is_recorded
            self._busy.add(account)
            is_new |= account.follow(limits, now)
        if is_new:
            self._sync.forget()
            self._wake.set()

    def wanted(self, relay: int, asked: AllowanceWanted, reply: Reply) -> None:
        """A relay wants more; the reply comes at once or soon, exactly one, unless the relay has `left`."""
        account = self.accounts.get(asked.key)
        if account is None:  # its limits are gone, and the relay is about to hear of it
            reply(Allowance(asked.seq, asked.key, asked.needs))
            return
        self._busy.add(account)
        waiter = Waiter(relay, asked.seq, asked.needs, asked.wants, reply)
        self._sync.linger(account)
        if (said := self._at_once(account, waiter)) is not None:
            self._say(account, waiter, said)
            return
        account.waiters.append(waiter)
        asyncio.get_running_loop().call_later(SLOW_S, self._overdue, account, waiter)
        self._wake.set()

    def spent(self, relay: int, told: Spent) -> None:
        """What a relay has spent, and gives back."""
        account = self.accounts.get(told.key)
        if account is not None:
            account.note(relay, told, self._sync.now())
            self._busy.add(account)

    def left(self, relay: int) -> None:
        """That relay is gone."""
        now = self._sync.now()
        self._blind = {each: reply for each, reply in self._blind.items() if each[1] != relay}
        for account in self.accounts.values():
            if account.left(relay, now):
                self._busy.add(account)

    # -- for people

    def shares(self) -> list[tuple[str, str, float]]:
        """How much of each limit is used, over all gateways as far as is known: (key's name, limit, 0 to 1)."""
        now = self._sync.now()
        return [
            (self._names[id], limit, share)
            for id, account in self.accounts.items()
            for limit, share in account.shares(now)
        ]

    # -- replies

    @property
    def is_known(self) -> bool:
        """Whether the store has been heard of every key that has limits."""
        return all(account.is_known for account in self.accounts.values())

    @property
    def is_alone(self) -> bool:
        """Whether this gateway goes on without the others, since the store does not answer."""
        return self._store.is_shared and not self._is_in_touch() and not self._store.is_up

    def _is_in_touch(self) -> bool:
        known_at = self._sync.known_at
        return known_at is not None and self._sync.now() < known_at + SILENT_S

    def _decides(self, *, is_known: bool, is_cut: bool) -> bool:
        """Whether this gateway gives out its share without asking. The others must have seen by then that it is silent,
        where there are others."""
        if not self._store.is_shared and is_known:
            return True
        if not is_known and self._store.is_up:
            return False
        if self._sync.known_at is None or self._others().gateways == 1:
            return is_cut
        return not self._is_in_touch()

    def _is_slow(self) -> bool:
        """Whether the store has not answered for so long that nobody need wait for it."""
        return self._asked_at is not None and self._clock() - self._asked_at > SLOW_S

    def _gateways(self) -> int | None:
        return self._sync.others.gateways or self._store.gateways or self.assumed

    def _others(self) -> Others:
        return Others(self._gateways(), self._sync.others.silent)

    def _at_once(self, account: KeyAccount, waiter: Waiter, *, is_late: bool = False) -> Allowance | None:
        """The reply, as far as there is one without the store."""
        now, others, is_known = self._sync.now(), self._others(), account.is_known
        is_cut = is_late or not self._store.is_up or self._is_slow()
        decides = self._decides(is_known=is_known, is_cut=is_cut)
        if decides and others.gateways is not None:
            account.extend(waiter, now, others.gateways)
        granted = account.grant(waiter, now)
        if granted is not None and (waiter.is_urgent or decides or is_cut or granted.granted != NOTHING):
            return granted
        if decides:
            return account.refuse(waiter, now, Others(others.gateways, None))
        is_spent = is_known and account.is_spent(waiter.needs, now, others)
        if is_cut and self._store.is_up:
            return account.refuse(waiter, now, others, reason=SLOW, wait_s=None if is_spent else AGAIN_S)
        if is_cut:
            known_at = self._sync.known_at or now
            return account.refuse(waiter, now, Others(others.gateways, None), known_at + SILENT_S, GAP)
        is_fresh = self._clock() - self._agreed_at.get(account.key, -FRESH_S) < FRESH_S
        if waiter.is_urgent and is_fresh and is_spent:
            return account.refuse(waiter, now, others)
        return None

    def _overdue(self, account: KeyAccount, waiter: Waiter) -> None:
        if waiter in account.waiters:
            account.waiters.remove(waiter)
            self._reply_late(account, waiter)

    def _reply_late(self, account: KeyAccount, waiter: Waiter) -> None:
        self._say(account, waiter, self._at_once(account, waiter, is_late=True) or Allowance(waiter.seq, account.key))

    def _say(self, account: KeyAccount, waiter: Waiter, said: Allowance) -> None:
        if said.refused is not None and not (self._store.is_up and account.is_known):
            self._blind[account.key, waiter.relay] = waiter.reply
        waiter.reply(said)

    def _see(self, account: KeyAccount) -> None:
        """The store was heard: what relays were refused without it, for a minute or a month, they may ask again."""
        for key, relay in [each for each in self._blind if each[0] == account.key]:
            self._blind.pop((key, relay))(Allowance(0, key))

    def _answer(self, account: KeyAccount, *, is_asked_again: bool = True) -> None:
        now, others, waiters = self._sync.now(), self._others(), account.waiters
        account.waiters = []
        for waiter in waiters:
            said = account.grant(waiter, now)
            if said is None and is_asked_again and not account.is_spent(waiter.needs, now, others):
                account.waiters.append(waiter)  # it came while the others were agreed on
                self._wake.set()
                continue
            waiter.reply(said or account.refuse(waiter, now, others))

    # -- in the background

    async def run(self) -> None:
        """Agree with the others until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.look()
            except Exception:
                self._asked_at = None
                log.exception("limits are not agreed with the store")
                await asyncio.sleep(AGAIN_S)

    async def aclose(self) -> None:
        """Hold nothing any more, and write what was spent."""
        for account in self.accounts.values():
            self._answer(account, is_asked_again=False)
            for relay in list(account.relays):
                account.left(relay, self._sync.now())
            account.rest()
        if self._store.is_up:
            now = self._sync.now()
            await self._agree([each for each in self.accounts.values() if each.is_untold or each.is_idle(now)])

    async def look(self) -> None:
        """Agree on what there is to agree on now, if the store is there."""
        self._note_alone()
        if not self._store.is_up:
            return
        now = self._sync.now()
        if self._sync.is_renamed():
            self._busy |= set(self.accounts.values())
        self._busy = {account for account in self._busy if not account.is_at_rest(now)}
        for account in self._busy:
            self._sync.linger(account)
        batch = [account for account in self._busy if self._is_due(account, now)]
        is_to_say = self._store.is_shared and self.accounts and self._clock() - self._said_at >= SAY_S
        if batch or is_to_say:
            await self._agree(batch)

    def _is_due(self, account: KeyAccount, now: float) -> bool:
        waited_s = self._clock() - self._agreed_at.get(account.key, -WRITE_S)
        if account.waiters or not account.is_known:
            return True
        if self._store.is_shared and waited_s >= LOOK_S and account.is_low(now, self._others()):
            return True
        return waited_s >= WRITE_S and (account.is_untold or account.is_idle(now) or account.has_ended(now))

    async def _agree(self, accounts: list[KeyAccount]) -> None:
        try:
            # What was spent without the store goes last, so that all of it is told when we say so.
            ordered = sorted(accounts, key=lambda account: account.is_beyond)
            is_first = True
            while ordered or is_first:
                # Whom somebody waits for comes first, also where that is so since we began.
                asked = [account for account in ordered if account.waiters and not account.is_beyond]
                batch, is_first = (asked or ordered)[:BATCH], False
                done = set(batch)
                ordered = [account for account in ordered if account not in done]
                self._asked_at = self._clock()
                async with asyncio.timeout(AGREE_S):
                    await self._sync.agree(batch)
                self._asked_at = None
                at = self._said_at = self._clock()
                for account in batch:
                    self._agreed_at[account.key] = at
                    self._answer(account)
                    self._see(account)
            async with asyncio.timeout(AGREE_S):
                await self._sync.sweep()
        except (StoreError, TimeoutError) as exc:
            self._asked_at = None
            self._answer_without()
            # Where it is down it says so itself.
            if not isinstance(exc, StoreDown | TimeoutError) and str(exc) != self._trouble:
                self._trouble = str(exc)
                log.error("limits are not agreed with the store", reason=str(exc))
        else:
            self._trouble = None

    def _answer_without(self) -> None:
        for account in self.accounts.values():
            waiters, account.waiters = account.waiters, []
            for waiter in waiters:
                self._reply_late(account, waiter)

    def _note_alone(self) -> None:
        if (is_alone := bool(self.accounts) and self.is_alone) == self._was_alone:
            return
        self._was_alone = is_alone
        gateways = self._others().gateways
        if is_alone and gateways is None:
            log.warning("limits without the store: keys with limits are refused, as nobody knows how many share them")
        elif is_alone:
            log.warning("limits without the store: this gateway has its share of them", gateways=gateways)
        else:
            log.info("limits are agreed with the other gateways again", gateways=gateways)
