"""URLs of PostgreSQL: what may be shown of one, and whether it is one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

SCHEMES: Final = ("postgresql", "postgres")


def is_url(text: str) -> bool:
    """Whether it is meant as a URL of PostgreSQL."""
    return text.partition("://")[0] in SCHEMES


def trouble(url: str) -> str | None:
    """Why it cannot be read, without a word of it, as a sentence goes on after its name; None where it can be."""
    try:
        parts = urlsplit(url)
        user, _, hosts = parts.netloc.rpartition("@")
        ports = [port for host in hosts.split(",") if (port := host.rpartition("]")[2].partition(":")[2])]
        is_cut = "@" in user + parts.path or bool(parts.fragment)
        is_cut |= any("=" not in field for field in parts.query.split("&") if field)
        is_cut |= not all(port.isascii() and port.isdecimal() for port in ports)
    except ValueError:  # brackets that are not closed
        is_cut, ports = True, []
    if is_cut:
        return "is cut where a user or password has one of `/ ? # @ [ ]`: write them as `%2F %3F %23 %40 %5B %5D`"
    if not all(1 <= int(port) <= 65535 for port in ports):
        return "has a port that is not between 1 and 65535"
    return None


def place(url: str) -> str:
    """`HOST:PORT/DATABASE`, without user, password and options; of several hosts all."""
    if trouble(url) is not None:
        return "PostgreSQL"  # nobody knows what of it is the password
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", ["localhost"])[-1]
    return f"{hosts}{parts.path}" if parts.path != "/" else hosts


def names(url: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """The names of its hosts that have to be looked up; neither addresses nor sockets of this machine."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", [env.get("PGHOST", "")])[-1]
    each = (unquote(host) for host in hosts.split(",") if "[" not in host)
    return tuple(name for host in each if _is_name(name := host.partition(":")[0]))


def _is_name(host: str) -> bool:
    return bool(host) and not host.startswith("/") and not host.replace(".", "").isdecimal()


def has_password(url: str) -> bool:
    """Whether a password is written in it."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return bool(user.partition(":")[2]) or "password" in parse_qs(parts.query)
