"""What is known of a daemon that has models of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backends.endpoint import Dialect, Endpoint
from backends.engine import Probe


@dataclass(frozen=True, slots=True)
class Daemon:
    """`url`: where it listens. `loaded`: its models in memory, by full name, with the bytes that they take."""

    url: str
    loaded: Mapping[str, int]


def daemon(endpoint: Endpoint, probe: Probe) -> Daemon | None:
    """The daemon behind an endpoint; None for every other engine."""
    if endpoint.dialect is not Dialect.OLLAMA:
        return None
    return Daemon(endpoint.address, {name: each.memory_bytes for name, each in probe.facts.items() if each.is_loaded})
