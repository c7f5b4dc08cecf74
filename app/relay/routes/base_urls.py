"""What a client with a wrong base URL is told: its paths are a route with too much or too little before it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

OLLAMA_PREFIX = "/api/"
# What clients of these append to their base URL begins with /v1 itself.
_WITHOUT_V1 = ("/v1/messages",)
_MAX_CHARS = 200


def meant(path: str, routes: Iterable[str]) -> str | None:
    """The longest route that a path ends in, doubled slashes and one at its end aside; None where there is none."""
    if len(path) > _MAX_CHARS:
        return None
    tidy = re.sub(r"/+", "/", path).rstrip("/").lower()
    fits = [route for route in routes if any(_ends_in(tidy, each) for each in (route, route.removeprefix("/v1")))]
    return max(fits, key=len, default=None)


def advice(path: str, routes: Iterable[str]) -> str:
    """A sentence, with a space before it, for a client whose path is not a route; "" where no route comes near. The
    path itself is not repeated.
    """
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
