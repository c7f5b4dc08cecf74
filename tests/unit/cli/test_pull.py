"""`modelport pull`, on a gateway whose daemon is the fake daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.ollama import FakeOllama
from tests.fakes.ollama_models import Model
from tests.rigs.cli import run
from tests.rigs.ollama import Threaded
from tests.rigs.serving import Gateway, running, until

CONFIG = """
backends:
  first: {kind: ollama, url: "URL"}
  second: {kind: ollama, url: "http://127.0.0.1:9"}
models:
  "*": {backend: first}
"""


def stock(daemon: FakeOllama) -> None:
    """What can be pulled."""
    daemon.store.registry["big:7b"] = Model("big:7b", size=4_000_000_000)


@pytest.fixture
def daemon() -> Iterator[FakeOllama]:
    with Threaded(stock) as threaded:
        yield threaded.daemon


@pytest.fixture
def gateway(tmp_path: Path, daemon: FakeOllama) -> Iterator[Gateway]:
    config = tmp_path / "daemon.yaml"
    config.write_text(CONFIG.replace("URL", daemon.url))
    with running(tmp_path, "--config", str(config)) as started:
        assert started.url
        until(lambda: started.status()["health"]["backends"][0]["state"] == "ready")
        yield started


def test_a_model_is_fetched_with_a_bar_and_served_at_once(gateway: Gateway, tmp_path: Path, daemon: FakeOllama) -> None:
    ended = run(tmp_path, "pull", "big:7b", "--backend", "first")

    assert (ended.code, ended.err) == (0, "")
    assert "pulling manifest" in ended.out
    assert "4.0/4.0 GB" in ended.out
    assert ended.out.rstrip().endswith("success") or "success" in ended.out
    assert daemon.store.find("big:7b")
    listed = f"{gateway.url}/v1/models"
    until(lambda: "big:7b" in httpx.get(listed, trust_env=False).text)


def test_what_the_daemon_says_of_a_failure_is_shown(gateway: Gateway, tmp_path: Path) -> None:
    ended = run(tmp_path, "pull", "no-such", "-b", "first")

    assert ended.code == 1
    assert "no such host" in ended.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "There are several Ollama backends: name one with --backend (first, second)."),
        (("--backend", "third"), "'third' is not an Ollama backend here (known: first, second)."),
        (("--backend", "second"), "second: failed: no connection to it (connection refused)"),
    ],
    ids=["several", "unknown", "not there"],
)
def test_which_daemon_must_be_clear(gateway: Gateway, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    until(lambda: gateway.status()["health"]["backends"][1]["state"] == "failed")

    ended = run(tmp_path, "pull", "big:7b", *options)

    assert (ended.code, ended.err) == (1, f"{said}\n")
