"""Clients' keys: made once, kept as digests, found in a time that does not depend on which one matches. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from app.table import Key


def digest(secret: bytes | str) -> str:
    """The SHA-256 digest of a key, in lower-case hex: all that is ever stored of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret).hexdigest()


def find(presented: bytes | str, keys: Sequence[Key], now: float) -> Key | None:
    """The entry that `presented` belongs to and that has not expired at `now` (Unix seconds); None for any other.

    Every entry is compared, in constant time, whether or not an earlier one matched.
    """
    wanted = digest(presented)
    matching: Key | None = None
    for key in keys:
        if hmac.compare_digest(wanted.encode(), key.sha256.encode()):
            matching = key
    if matching is not None and matching.expires is not None and matching.expires <= now:
        return None
    return matching


def new(name: str) -> tuple[str, str]:
    """A fresh key (256 random bits, `mp-NAME-…`) and its digest. The key exists nowhere else: show it once."""
    label = re.sub(r"[^a-z0-9]+", "", name.lower())[:16]
    secret = "-".join(part for part in ("mp", label, secrets.token_hex(32)) if part)
    return secret, digest(secret)
