"""One request to one engine, as far as its parameters are judged, and what is found of them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec

Given = Mapping[str, msgspec.Raw]


class Case(NamedTuple):
    """One request to one engine. `given`: what the client wrote, of the names that are watched. `settled`: names that
    the configuration has set. `kwargs`: what a chat template may be told.
    """

    engine: str
    kind: str
    operation: str
    given: Given
    settled: Collection[str] = ()
    kwargs: Collection[str] = ()

    def value(self, name: str) -> Any:
        """What was given, decoded; None where the configuration has set it."""
        raw = None if name in self.settled else self.given.get(name)
        return None if raw is None else msgspec.json.decode(raw)


class Verdict(NamedTuple):
    """As of Changes: members to set, or to leave out (None), and the client's names for what that changes."""

    members: dict[str, bytes | None]
    adjusted: list[str]
    dropped: list[str]
