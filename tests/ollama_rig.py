"""A real relay in front of the double of Ollama's daemon, with the table that its own probe makes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from app.table import Backend, Limits, Wildcard
from backends.base import State
from backends.config import OllamaConfig
from backends.ollama import Ollama
from tests.fake_ollama import FakeOllama
from tests.rig import Rig, running


async def row(daemon: FakeOllama, **config: Any) -> Backend:
    """The daemon's row after one look at it."""
    settings = OllamaConfig(kind="ollama", url=daemon.url, **config)
    engine = Ollama("ollama", settings)
    endpoint = engine.endpoint(1, 0, "")
    probe = await engine.probe(endpoint)
    assert probe.is_up, probe.reason
    return Backend(
        name="ollama",
        kind="ollama",
        state=State.READY,
        endpoint=endpoint,
        models=probe.models,
        is_strict=True,
        facts=dict(probe.facts),
    )


@contextlib.asynccontextmanager
async def gateway(daemon: FakeOllama, limits: Limits | None = None, **config: Any) -> AsyncIterator[Rig]:
    """Every model of the daemon under its own name, and under `ollama/NAME`."""
    found = await row(daemon, **config)
    async with running({"ollama": found}, {}, limits) as rig:
        await rig.published(wildcards=(Wildcard("ollama/", "ollama"), Wildcard("", "ollama")))
        yield rig
