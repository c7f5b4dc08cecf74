"""What a route is, and which of them a path leads to. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from app.dialects.client_api import ResponseEncoder
from app.relay.http.origin_check import OriginRule
from app.relay.http.request import Request

Handler = Callable[[Request], Awaitable[None]]
EncoderOf = Callable[[Request], ResponseEncoder | None]
READ: Final = ("GET", "HEAD", "OPTIONS")
POST: Final = ("POST", "OPTIONS")
READ_OR_POST: Final = ("GET", "HEAD", "POST", "OPTIONS")
# The handler itself says what becomes of each method, OPTIONS too.
ANY_METHOD: Final = None


class Access(Enum):
    """Who may use a route (app/relay/routes/access.py)."""

    OPEN = "open"  # everybody
    KEY = "key"  # whoever has a key; everybody while none is configured
    ADMIN = "admin"  # whoever has an administrator's key; while none is configured, every program of this machine


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the route table.

    `path` ends in `/{name}` where the row is for every path below, and in `*` where it is for what begins like it; an
    exact row comes before those, and of those the longest. `methods` are in the order of the `Allow` header.
    `otherwise` answers who has no access, in place of a refusal. `encoder` makes what encodes the answers, refusals
    too, for clients that do not speak OpenAI's dialect; without it, or where it returns None, they are OpenAI's.
    """

    path: str
    methods: tuple[str, ...] | None
    access: Access
    handler: Handler
    otherwise: Handler | None = None
    origin: OriginRule = OriginRule.LISTED
    encoder: EncoderOf | None = None

    @property
    def is_exact(self) -> bool:
        """Whether it is for one path only."""
        return not self.path.endswith(("}", "*"))


class RouteTable:
    """All routes of a relay."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """ValueError for two rows of one path, and without a row `*` for everything else."""
        self.rows = tuple(routes)
        paths = [route.path for route in self.rows]
        if len(set(paths)) < len(paths) or "*" not in paths:
            raise ValueError("a route table has one row for each path, and one for all others")
        self._exact = {route.path: route for route in self.rows if route.is_exact}
        below = [(*_beginning(route.path), route) for route in self.rows if not route.is_exact]
        self._below = sorted(below, key=lambda each: len(each[0]), reverse=True)

    def find(self, path: str) -> Route:
        """The row of a path; that of `*` for a path that no other row is for."""
        route = self._exact.get(path)
        if route is not None:
            return route
        return next(
            route for beginning, shortest, route in self._below if path.startswith(beginning) and len(path) >= shortest
        )


def _beginning(path: str) -> tuple[str, int]:
    """What paths of such a row begin with, and how long they are at least."""
    if path.endswith("*"):
        return path[:-1], len(path) - 1
    beginning = path[: path.rindex("{")]
    return beginning, len(beginning) + 1
