"""One request to one engine, as far as its parameters are judged, and the verdict on them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec

from backends.engine_profile import EngineProfile
from backends.errors import Rejected

Given = Mapping[str, msgspec.Raw]


class RequestCase(NamedTuple):
    """One request to one engine.

    `engine`: the backend's name. `given`: what the client wrote, of the names in `judge.WATCHED`. `settled`: names that
    the configuration has set. `kwargs`: members of `chat_template_kwargs` that a chat template may be told.
    """

    engine: str
    profile: EngineProfile
    operation: str
    given: Given
    settled: Collection[str] = ()
    kwargs: Collection[str] = ()

    def value(self, name: str) -> Any:
        """What the client wrote, decoded; None where it wrote nothing, or the configuration has set it.

        Rejected for a number that Python cannot hold."""
        raw = None if name in self.settled else self.given.get(name)
        try:
            return None if raw is None else msgspec.json.decode(raw)
        except msgspec.ValidationError as exc:
            message = f"'{name}' holds a number that is out of range."
            type_ = "invalid_request_error"
            raise Rejected(self.engine, message, status=400, type_=type_, code="invalid_value", param=name) from exc


class Verdict(NamedTuple):
    """What is changed of a request: members to set (to this JSON) or to leave out (None).

    `adjusted`, `dropped`: the client's names for what the engine is told otherwise, or not at all.
    """

    members: dict[str, bytes | None]
    adjusted: list[str]
    dropped: list[str]
