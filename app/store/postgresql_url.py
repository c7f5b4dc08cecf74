"""URLs of PostgreSQL: what may be shown of one, and whether it is one. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs, urlsplit

SCHEMES: Final = ("postgresql", "postgres")


def is_url(text: str) -> bool:
    """Whether it is meant as a URL of PostgreSQL."""
    return text.partition("://")[0] in SCHEMES


def place(url: str) -> str:
    """`HOST:PORT/DATABASE`, without user, password and options; of several hosts all."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", ["localhost"])[-1]
    return f"{hosts}{parts.path}" if parts.path != "/" else hosts


def has_password(url: str) -> bool:
    """Whether a password is written in it."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return bool(user.partition(":")[2]) or "password" in parse_qs(parts.query)
