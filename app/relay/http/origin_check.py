"""Who may come in while no key is configured: this machine's own programs, and no web page of somebody else's.

A browser on this machine reaches loopback for every page it shows: by a request it sends without asking (CSRF), or by a
name that its owner lets point at 127.0.0.1 (DNS rebinding). With keys neither gets far: the page has none.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from enum import Enum
from typing import TYPE_CHECKING

from app.errors import Problem

if TYPE_CHECKING:
    from app.relay.http.request import Request

# Names that nobody can register, so none of them can be made to point here from outside.
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal")
# What Ollama lets in: pages of this machine, whatever their port, and applications that are pages in a window.
_LOCAL_PAGE = re.compile(
    r"(?:https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::\d{1,5})?|(?:app|file|tauri|vscode-webview|vscode-file)://.*)\Z"
)


class OriginRule(Enum):
    """Which Host and Origin a route answers to while no key is configured."""

    ANY = "any"  # every one: a probe comes under whatever name its sender has for us
    LISTED = "listed"  # addresses and local names; pages of the gateway's own origin or one of `server.cors_origins`
    OLLAMA = "ollama"  # the same, and pages that an Ollama daemon lets in; these may read the answer, keys or not


def check(request: Request, rule: OriginRule) -> None:
    """Problem (403) for a request that a foreign page may have sent, while nobody needs a key."""
    if rule is OriginRule.ANY:
        return
    origin = request.header(b"origin")
    is_local_page = rule is OriginRule.OLLAMA and origin is not None and _LOCAL_PAGE.match(origin.lower()) is not None
    if request.table.is_open:
        _check_foreign(request, origin, is_local_page=is_local_page)
    if origin is not None and is_local_page:
        request.let_read(origin)


def _check_foreign(request: Request, origin: str | None, *, is_local_page: bool) -> None:
    named = request.header(b"host")
    host = "localhost" if named is None else named.lower()
    if not _is_private(host):
        message = (
            "Without keys the gateway answers to addresses and local names only, not to this Host. Set a key (API_KEY)."
        )
        raise Problem(403, "foreign_host", message)
    allowed = request.table.cors_origins
    if origin is None or is_local_page or origin in allowed or "*" in allowed:
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
