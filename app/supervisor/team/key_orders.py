"""What may be ordered about keys: each order is checked against the configuration and carried out in the store."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import msgspec

from app.config import cross_checks
from app.config.model import Config
from app.config.team import KeyConfig
from app.keys import new
from app.store.database import Database
from app.store.tables import keys
from app.store.tables.keys import KeysRefused, KeyTerms, StoredKey
from app.table import KeyLimits

_OF_ENVIRONMENT = re.compile(r"API_KEY(-\d+)?")


class FileKey(msgspec.Struct, frozen=True):
    """A key of the configuration. `ends`: of each of its secrets, oldest first; None: as long as the key."""

    terms: KeyTerms
    place: Literal["file", "environment"]
    ends: tuple[float | None, ...]

    @classmethod
    def of(cls, key: KeyConfig) -> FileKey:
        """The key as it is written."""
        terms = KeyTerms(
            key.name,
            key.team,
            key.role,
            key.models,
            key.expires.timestamp() if key.expires is not None else None,
            key.priority,
            key.limits() or KeyLimits(),
        )
        place: Literal["file", "environment"] = "environment" if _OF_ENVIRONMENT.fullmatch(key.name) else "file"
        return cls(terms, place, (*(old.until.timestamp() for old in key.replaced), None))


class KeyOrders:
    """Orders about the keys of one store. `changed` is awaited after each, so that this gateway has it when the order
    is answered. Every method raises KeysRefused, StoreDown and StoreError.
    """

    def __init__(
        self,
        database: Database,
        config: Callable[[], Config],
        now: Callable[[], float],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._config = config
        self._now = now
        self._changed = changed

    def __repr__(self) -> str:
        return f"<KeyOrders {self._database.place}>"

    @property
    def place(self) -> str:
        """Where the keys are kept, for people."""
        return self._database.place

    def of_file(self) -> list[FileKey]:
        """The keys of the configuration."""
        return [FileKey.of(key) for key in self._config().keys]

    async def listed(self) -> list[StoredKey]:
        """The keys of the store, and behind them those that were revoked lately."""
        return await keys.listed(self._database)

    async def make(self, terms: KeyTerms, sha256: str | None = None) -> tuple[str | None, StoredKey]:
        """A new key, and its secret: shown once, and None where its digest was given."""
        self._check_name(terms.name)
        self._check_models(terms.models)
        if terms.expires is not None and terms.expires <= self._now():
            raise KeysRefused("expires: it is over already, so the key would open nothing.", code="invalid_request")
        secret, made = self._secret(terms.name, sha256)
        key = await keys.add(self._database, terms, made, self._now())
        await self._changed()
        return secret, key

    async def edit(self, key: str, changes: dict[str, Any]) -> StoredKey:
        """Change these members of its terms."""
        self._check_ours(key)
        if (name := changes.get("name")) is not None and name != key:
            self._check_name(name)
        self._check_models(changes.get("models"))
        _, after = await keys.edit(self._database, key, changes, self._now())
        await self._changed()
        return after

    async def rotate(self, key: str, grace_s: float, sha256: str | None = None) -> tuple[str | None, StoredKey]:
        """A new secret; the old ones work for `grace_s` seconds more."""
        self._check_ours(key)
        secret, made = self._secret(key, sha256)
        after = await keys.rotate(self._database, key, made, self._now(), grace_s)
        await self._changed()
        return secret, after

    async def revoke(self, key: str) -> StoredKey:
        """It opens nothing any more."""
        self._check_ours(key)
        ended = await keys.revoke(self._database, key, self._now())
        await self._changed()
        return ended

    def _check_ours(self, key: str) -> None:
        if any(each.name == key for each in self._config().keys):
            if _OF_ENVIRONMENT.fullmatch(key):
                how = "API_KEY: change it there, and restart"
            else:
                how = "the configuration file: change it there (`modelport keys … --config FILE`), and reload"
            raise KeysRefused(f"The key {key!r} is one of {how}.", code="key_of_file")

    def _check_name(self, name: str) -> None:
        if any(each.name == name for each in self._config().keys):
            raise KeysRefused(f"There is a key {name!r} in the configuration already.", code="name_taken")

    def _check_models(self, models: Sequence[str] | None) -> None:
        if problems := cross_checks.unknown_models(self._config(), models or ()):
            raise KeysRefused(f"{'; '.join(problems)}.", code="invalid_request")

    def _secret(self, name: str, sha256: str | None) -> tuple[str | None, str]:
        if sha256 is None:
            return new(name)
        known = {
            digest for key in self._config().keys for digest in (key.sha256, *(old.sha256 for old in key.replaced))
        }
        if sha256.lower() in known:
            raise KeysRefused("There is a key with this digest in the configuration already.", code="name_taken")
        return None, sha256.lower()
