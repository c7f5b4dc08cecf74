"""Paths that come of a wrong base URL: a route with too much, too little or the wrong thing around it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

OLLAMA_PREFIX = "/api/"
# What clients of these append to their base URL begins with /v1 itself.
_WITHOUT_V1 = ("/v1/messages",)
_MAX_CHARS = 200


def meant(path: str, routes: Iterable[str]) -> str | None:
    """The route that a path ends in once slashes are put right; None where it ends in none. The longest one counts."""
    if len(path) > _MAX_CHARS:
        return None
    tidy = re.sub(r"/+", "/", path).rstrip("/").lower()
    fits = [route for route in routes if any(_ends_in(tidy, each) for each in (route, route.removeprefix("/v1")))]
    return max(fits, key=len, default=None)


def advice(path: str, routes: Iterable[str]) -> str:
    """The sentence for a client whose path there is not; "" where nothing is known of it. The path is not echoed."""
    if re.sub(r"/+", "/", path).rstrip("/").lower() in ("/v1", "/v1/v1", "/api"):
        return " This is a base URL: clients append the route to it."
    route = meant(path, routes)
    if route is None:
        return ""
    if route.startswith(OLLAMA_PREFIX):
        base = "the address alone, without a path"
    elif route.startswith(_WITHOUT_V1):
        base = "the address alone (Anthropic's clients append /v1/messages themselves)"
    else:
        base = "the address and /v1, once, with no slash or route behind it"
    return f" Did you mean {route}? The base URL of its clients is {base}."


def _ends_in(path: str, route: str) -> bool:
    return len(route) > 1 and path.endswith(route)
