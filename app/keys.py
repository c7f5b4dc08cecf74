"""Clients' keys: made once, kept as digests, found by digest."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence

import msgspec

from app.table import Key


class StoredKeys(msgspec.Struct, frozen=True):
    """The keys of the store, as a gateway knows them. `is_closed`: a key is needed even where none is known.
    `missing`: why there may be others than these; None: these are all. `is_unread`: this gateway has never known them.
    """

    keys: tuple[Key, ...] = ()
    is_closed: bool = False
    missing: str | None = None
    is_unread: bool = False


NO_STORED_KEYS = StoredKeys()


def digest(secret: bytes | str) -> str:
    """The SHA-256 digest of a key, in lower-case hex: all that is ever stored of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret).hexdigest()


class _Index:
    """The keys of one table by their digests: a table has thousands of requests."""

    def __init__(self) -> None:
        self._of: Sequence[Key] = ()
        self._by_digest: dict[str, Key] = {}
        self._by_secret: dict[bytes | str, Key] = {}  # those that were presented, so that they are digested once

    def __repr__(self) -> str:
        return f"<_Index {len(self._by_digest)} keys>"

    def find(self, presented: bytes | str, keys: Sequence[Key]) -> Key | None:
        """Of two keys with one digest the last counts."""
        if keys is not self._of:
            self._of, self._by_digest, self._by_secret = keys, {key.sha256: key for key in keys}, {}
        key = self._by_secret.get(presented)
        if key is None and (key := self._by_digest.get(digest(presented))) is not None:
            self._by_secret[presented] = key  # never more than there are keys
        return key


_index = _Index()


def find(presented: bytes | str, keys: Sequence[Key], now: float) -> Key | None:
    """The entry that `presented` belongs to and that has not expired at `now` (Unix seconds); None for any other.

    It is looked up by its SHA-256 digest, which whoever presents it cannot choose: how long that takes says nothing
    about the digests that are there. One that was right before is looked up as it is, among those that were.
    """
    matching = _index.find(presented, keys)
    if matching is not None and matching.expires is not None and matching.expires <= now:
        return None
    return matching


def new(name: str) -> tuple[str, str]:
    """A fresh key (256 random bits, `mp-NAME-…`) and its digest. The key exists nowhere else: show it once."""
    label = re.sub(r"[^a-z0-9]+", "", name.lower())[:16]
    secret = "-".join(part for part in ("mp", label, secrets.token_hex(32)) if part)
    return secret, digest(secret)
