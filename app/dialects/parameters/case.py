"""One request to one engine, as far as its parameters are judged, and what is found of them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec

from backends.errors import Rejected

Given = Mapping[str, msgspec.Raw]


class RequestCase(NamedTuple):
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
        """What was given, decoded; None where the configuration has set it. Rejected for a number beyond all."""
        raw = None if name in self.settled else self.given.get(name)
        try:
            return None if raw is None else msgspec.json.decode(raw)
        except msgspec.ValidationError as exc:
            message = f"'{name}' holds a number that is out of range."
            kind = "invalid_request_error"
            raise Rejected(self.engine, message, status=400, type_=kind, code="invalid_value", param=name) from exc


class Verdict(NamedTuple):
    """As of Changes: members to set, or to leave out (None), and the client's names for what that changes."""

    members: dict[str, bytes | None]
    adjusted: list[str]
    dropped: list[str]
