"""Who may come in while there is no key at all: this machine's own programs, and no web page of somebody else's. Pure.

A browser on this machine reaches loopback for every page it shows: by a request it sends without asking (CSRF), or by a
name that its owner lets point at 127.0.0.1 (DNS rebinding). With keys neither gets far: the page has none.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Mapping

from app.errors import Problem
from app.table import Table

# Names that nobody can register, so none of them can be made to point here from outside.
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal")


# What Ollama lets in: pages of this machine, whatever their port, and applications that are pages in a window.
_LOCAL_PAGE = re.compile(
    r"(?:https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::\d{1,5})?|(?:app|file|tauri|vscode-webview|vscode-file)://.*)\Z"
)


def is_local_page(origin: str | None) -> bool:
    """Whether Ollama would let pages of that origin in without being asked."""
    return origin is not None and _LOCAL_PAGE.match(origin.lower()) is not None


def check(headers: Mapping[str, str], table: Table, *, is_ollama: bool = False) -> None:
    """Problem (403) for a request that a foreign page may have sent, while nobody needs a key.

    Where Ollama's API is asked, its own rule adds to ours.
    """
    if table.keys:
        return
    host = headers.get("host", "localhost").lower()
    origin = headers.get("origin")
    if not _is_private(host):
        message = (
            "Without keys the gateway answers to addresses and local names only, not to this Host. Set a key (API_KEY)."
        )
        raise Problem(403, "foreign_host", message)
    if origin is None or origin in table.cors_origins or "*" in table.cors_origins:
        return
    if is_ollama and is_local_page(origin):
        return
    if origin.lower().partition("://")[2] != host:
        message = "Without keys, web pages may use the gateway only if server.cors_origins names their origin."
        raise Problem(403, "foreign_origin", message)


@functools.lru_cache(maxsize=256)  # a client's Host is the same for all its requests, and parsing it costs 8 µs
def _is_private(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.strip("[]").rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_PRIVATE_SUFFIXES)
    return True
