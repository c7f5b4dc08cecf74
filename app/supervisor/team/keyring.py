"""The keys of the store as this gateway knows them, kept on disk for when the store is away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from app.config.model import Config
from app.keys import NO_STORED_KEYS, StoredKeys
from app.store.database import StoreError
from app.store.tables import keys
from app.store.tables.keys import KeysVersion, StoredKey
from app.supervisor.json_store import JsonStore
from app.supervisor.team.team_store import TeamStore

log = structlog.get_logger()

# Changes are told at once (LISTEN/NOTIFY); this is for those that were missed, and for a store that tells nobody.
POLL_S: Final = 0.5
# A store in the state folder is changed by this gateway, which knows, and by commands while none runs.
POLL_ALONE_S: Final = 5.0
# How long a start waits for the keys.
START_S: Final = 1.0
# However the version is, all keys are read again after so long.
ALL_S: Final = 60.0
# How often the file on disk is told that its keys are still those of the store.
KEPT_S: Final = 60.0


class Kept(msgspec.Struct, frozen=True):
    """The file's content. `place`: of which store; `checked`: Unix seconds at which the store had these last."""

    format: int
    place: str
    version: KeysVersion
    checked: float
    keys: list[StoredKey]


def disown(path: Path) -> None:
    """Have a gateway that starts go by none of the keys on its disk, since they were changed in the store. That there
    were some it goes on knowing. Blocks; OSError where the disk takes neither.
    """
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Kept)
    except (OSError, ValueError):  # there is none, or it is damaged
        path.unlink(missing_ok=True)
        return
    file = JsonStore(path, Kept)
    file.write(msgspec.structs.replace(kept, place="", keys=[]))
    if file.catch_up() is not None:
        path.unlink(missing_ok=True)


class Known(msgspec.Struct, frozen=True):
    """What is known of the store's keys. `age_s`: for how long it has not been confirmed, 0 while it is. `is_read`: by
    this process, and not from the disk."""

    version: KeysVersion
    keys: tuple[StoredKey, ...]
    age_s: float
    is_read: bool


# What clients are told says nothing of where the store is.
_NOT_READ: Final = StoredKeys(is_closed=True, missing="the store of keys could not be read yet")
_TOO_OLD: Final = StoredKeys(is_closed=True, missing="the store of keys has not answered for too long")


def good_keys(
    known: Known | None, reason: str | None, *, key_cache_s: float, is_shared: bool, may_hold_keys: bool
) -> StoredKeys:
    """The keys that open something now. Pure.

    `known` None: the store could not be read yet. `reason`: why it cannot be read now; None: it can. `is_shared`: other
    gateways change it, too. `may_hold_keys`: there was a store before this gateway began. A gateway is never open
    because its store is empty or away: once there was a key it stays closed, and so it is while nobody can tell.
    """
    if known is None:
        if not (is_shared or may_hold_keys):
            return NO_STORED_KEYS
        return msgspec.structs.replace(_NOT_READ, is_unread=is_shared)
    had_keys = known.version.made > 0
    if reason is not None and is_shared and not had_keys and not known.is_read:
        return _NOT_READ
    if reason is not None and known.age_s > key_cache_s and (is_shared or had_keys):
        return _TOO_OLD
    return StoredKeys(tuple(key for each in known.keys for key in each.table_keys()), is_closed=had_keys)


class Keyring:
    """`stored` is what the table has of them. `changed` is called whenever that is another value while it runs.

    `may_be_open`: where there is no key at all, none is needed. `may_hold_keys`: as of `good_keys`. `now` is the wall
    clock, which outlives this process, and `clock` one that nobody sets.
    """

    def __init__(
        self,
        store: TeamStore,
        path: Path | None,
        changed: Callable[[], object],
        *,
        may_be_open: bool,
        may_hold_keys: bool,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.file = JsonStore(path, Kept)
        self.stored = NO_STORED_KEYS
        self._store = store
        self._changed = changed
        self._may_be_open = may_be_open
        self._may_hold_keys = may_hold_keys
        self._now = now
        self._clock = clock
        self._key_cache_s = 0.0
        self._of_file: frozenset[str] = frozenset()  # the names of the file's keys
        self._version: KeysVersion | None = None
        self._keys: tuple[StoredKey, ...] = ()
        self._checked = self._read_all = self._kept = -float("inf")
        self._is_read = False
        self._made = 0  # the most keys that were ever seen, in whichever store
        self._is_emptied = False
        self._reason: str | None = "it has not been reached yet"
        self._is_open = self._is_running = False
        self._news = asyncio.Event()
        self._reading = asyncio.Lock()
        self._doubled: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<Keyring {len(self._keys)} keys{'' if self._reason is None else ' away'}>"

    @property
    def keys(self) -> tuple[StoredKey, ...]:
        """The keys of the store as they are known, whether they still open something or not."""
        return self._keys

    @property
    def has_keys(self) -> bool:
        """Whether there has ever been a key in the store, as far as is known."""
        return self._made > 0

    def follow(self, config: Config) -> None:
        """The configuration has been read; whoever has read it makes a new table."""
        self._key_cache_s = config.store.key_cache_s
        self._of_file = frozenset(key.name for key in config.keys)
        self._settle(tells=False)

    async def open(self) -> None:
        """Know what the disk has, and then what the store has, where it is reachable."""
        self._store.listen(self._told)
        self._store.on_change(lambda _: self._news.set())
        kept = await asyncio.to_thread(self.file.read)
        if kept is not None and kept.format == 1:
            # Another store may have none yet: a gateway that had keys is not open because of that.
            self._made, self._may_hold_keys = kept.version.made, self._may_hold_keys or kept.version.made > 0
        if kept is not None and kept.format == 1 and kept.place == self._store.place:
            self._version, self._keys = kept.version, tuple(kept.keys)
            # A clock that was set back makes nothing younger than it can be.
            self._checked = self._clock() - max(0.0, self._now() - kept.checked)
        # A store that is slow delays no start: its keys come when it answers.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self.refresh()
        self._is_open = True
        self.stored = NO_STORED_KEYS  # what was so until now is no news
        self._settle()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        self._is_running = True
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S if self._store.is_shared else POLL_ALONE_S):
                    await self._news.wait()
            self._news.clear()
            await self.refresh()

    async def aclose(self) -> None:
        """Nothing is left to do: what is known is on disk."""

    async def refresh(self) -> None:
        """Know the keys as the store has them now; where it does not answer, what was known stays as long as it may."""
        async with self._reading:
            began = self._clock()
            try:
                version = self._never_fewer(await keys.version(self._store))
                if version != self._version or not self._is_read or began - self._read_all > ALL_S:
                    self._keys = tuple(await keys.live(self._store))
                    self._version, self._is_read, self._read_all = version, True, began
                    self._kept = -float("inf")
            except StoreError as exc:
                self._reason = str(exc)
            else:
                self._reason, self._checked = None, began
            self._settle()
            await self._keep()

    def _never_fewer(self, version: KeysVersion) -> KeysVersion:
        """With as many keys as were ever seen: a database that was emptied, or another one, opens no gateway."""
        if version.made == 0 < self._made and not self._is_emptied:
            log.error(
                "the store has no keys, and this gateway has known some: it stays closed; is it the right database?",
                store=self._store.place,
            )
        self._is_emptied = version.made == 0 < self._made
        self._made = max(self._made, version.made)
        return msgspec.structs.replace(version, made=self._made)

    def _told(self, topic: str) -> None:
        if topic in ("", keys.TOPIC):
            self._news.set()

    def _settle(self, *, tells: bool = True) -> None:
        """Work out what opens something now, and tell it where other keys than before open something."""
        known = None
        if self._version is not None:
            age_s = 0.0 if self._reason is None else self._clock() - self._checked
            known = Known(self._version, self._keys, age_s, self._is_read)
        good = good_keys(
            known,
            self._reason,
            key_cache_s=self._key_cache_s,
            is_shared=self._store.is_shared,
            may_hold_keys=self._may_hold_keys,
        )
        if not (self._may_be_open or good.is_closed):
            good = msgspec.structs.replace(good, is_closed=True)
        before, self.stored = self.stored, good
        doubled = self._of_file.intersection(key.terms.name for key in self._keys)
        if doubled - self._doubled:
            log.warning("keys of the file and of the store have the same name", names=sorted(doubled))
        self._doubled = doubled
        if self.stored == before or not self._is_open:
            return
        if self.stored.missing is not None and before.missing is None:
            log.error(
                "keys of the store are refused: they cannot be checked", why=self.stored.missing, reason=self._reason
            )
        elif self.stored.missing is None and self.stored.keys != before.keys:
            log.info("keys of the store", count=len(self._keys), version=self._version and self._version.version)
        if tells and self._is_running:  # before that nobody has a table
            self._changed()

    async def _keep(self) -> None:
        """Have on disk what is known, for a start while the store is away."""
        if self._reason is not None or self._version is None or self._clock() - self._kept < KEPT_S:
            return
        self._kept = self._clock()
        kept = Kept(1, self._store.place, self._version, self._now(), list(self._keys))
        await asyncio.to_thread(self.file.write, kept)
