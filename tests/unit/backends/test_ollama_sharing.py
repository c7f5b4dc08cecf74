"""A daemon that others use too: what makes it load anew, and what is shown of its models. On the fake daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.relay.proxy.daemon_loads import OFTEN, WITHIN_S, DaemonLoads
from backends.ollama.config import OllamaConfig
from backends.ollama.engine import Ollama
from backends.remote.config import RemoteConfig
from tests.fakes.ollama import FakeOllama
from tests.fakes.ollama_models import Model
from tests.rigs.ollama import gateway
from tests.rigs.raw_client import ask, chat

DIRECT = {"host": "127.0.0.1"}


@pytest.fixture
async def daemon() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as running:
        running.store.add(Model("embedder", capabilities=("embedding",)))
        original = running.store.find("smollm2:135m")
        running.store.add(Model("tuned", {"temperature": 0}, weights=original.weights, parent="smollm2:135m"))
        yield running


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/embed", "/api/embeddings"])
async def test_embeddings_of_a_chat_model_are_refused_before_the_daemon_is_asked(daemon: FakeOllama, path: str) -> None:
    words = {"prompt" if path == "/api/embeddings" else "input": "a"}
    async with gateway(daemon) as rig:
        first = await rig.ask(body=chat("smollm2:135m", max_tokens=1))
        loads = list(daemon.loads)

        refused = await rig.ask(path, {"model": "smollm2:135m", **words})
        again = await rig.ask(body=chat("smollm2:135m", max_tokens=1))
        embedded = await rig.ask(path, {"model": "embedder", **words})
        reverse = await rig.ask(body=chat("embedder"))

    assert (first.status, refused.status, again.status, embedded.status, reverse.status) == (200, 400, 200, 200, 400)
    assert b"makes no embeddings" in refused.body
    assert b"makes embeddings" in reverse.body
    assert daemon.loads == loads


@pytest.mark.parametrize("shift", [False, True])
async def test_the_setting_is_what_every_request_says(daemon: FakeOllama, shift: bool) -> None:
    async with gateway(daemon, shift=shift) as rig:
        await rig.ask(body=chat("smollm2:135m", max_tokens=1))
        await rig.ask("/v1/completions", {"model": "smollm2:135m", "prompt": "a", "max_tokens": 1})
        await rig.ask("/api/chat", {"model": "smollm2:135m", "messages": []})
        loads = len(daemon.loads)
        direct = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}], "stream": False}
        options = {"options": {"num_ctx": 8192, "num_predict": 1}}
        await ask(daemon.url, "POST", "/api/chat", {**direct, **options}, DIRECT)

    assert loads == 1
    assert len(daemon.loads) == (1 if shift else 2)


async def test_what_the_daemon_says_of_its_models_is_passed_on(daemon: FakeOllama) -> None:
    await ask(daemon.url, "POST", "/api/chat", {"model": "tuned", "messages": [], "keep_alive": 3600}, DIRECT)
    entry = (await ask(daemon.url, "GET", "/api/ps", b"", DIRECT)).json["models"][0]

    async with gateway(daemon) as rig:
        running = {each["name"]: each for each in (await rig.ask("/api/ps")).json["models"]}
        tags = {each["name"]: each for each in (await rig.ask("/api/tags")).json["models"]}
        listed = {each["id"]: each for each in (await rig.ask("/v1/models")).json["data"]}

    assert {"tuned:latest", "smollm2:135m"} <= running.keys()  # one process of the daemon's
    assert "embedder:latest" not in running
    assert {running[name]["expires_at"] for name in ("tuned:latest", "smollm2:135m")} == {entry["expires_at"]}
    assert tags["smollm2:135m"]["size"] == daemon.store.find("smollm2:135m").size
    assert listed["smollm2:135m"].get("state") != "sleeping"


URLS = {
    "http://h:11434": "http://h:11434",
    "http://h:11434/": "http://h:11434",
    "http://h:11434/v1": "http://h:11434",
    "http://h:11434/v1/": "http://h:11434",
    "http://h:11434/api": "http://h:11434",
    "http://h:11434/api/": "http://h:11434",
    "http://h:11434/api/chat": "http://h:11434",
    "http://h:11434/v1/chat/completions": "http://h:11434",
    "http://h:11434//v1": "http://h:11434",
    **{
        f"http://h:11434/{path}": "http://h:11434"
        for path in (
            *("V1", "API/", "v1/v1", "v1/api", "v1/messages", "v1/messages/count_tokens", "v1/responses", "v1/models"),
            *("v1/embeddings", "v1/audio/transcriptions", "api/embed", "api/embeddings", "api/show", "api/ps/"),
            *("api/generate", "api/tags", "api/version", "v1//chat/completions"),
        )
    },
    "https://h/ollama": "https://h/ollama",
    "https://h/ollama/v1": "https://h/ollama",
    "https://h/api/ollama/": "https://h/api/ollama",
}


@pytest.mark.parametrize(("written", "root"), URLS.items())
def test_a_daemons_url_is_its_root_however_it_is_written(written: str, root: str) -> None:
    config = OllamaConfig.model_validate({"kind": "ollama", "url": written})

    assert Ollama("o", config).endpoint(1, 0, "").address == root


@pytest.mark.parametrize(
    ("written", "base"),
    [
        ("http://h/v1", "http://h/v1"),
        ("http://h/v1/", "http://h/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("http://h/v1/chat/completions/", "http://h/v1"),
        ("http://h/api/v1/models", "http://h/api/v1"),
        ("http://models", "http://models"),
    ],
)
def test_a_remotes_url_is_its_base(written: str, base: str) -> None:
    assert RemoteConfig.model_validate({"kind": "remote", "url": written}).base_url == base


def test_a_model_that_is_loaded_again_and_again_is_logged_once() -> None:
    clock = [0.0]
    loads = DaemonLoads(lambda: clock[0])

    def note(seconds: list[float | None]) -> list[Any]:
        with capture_logs() as logged:
            for each in seconds:
                clock[0] += 1
                loads.note("ollama", "m", each)
        return logged

    assert note([0.9, None, 0.001]) == []
    (warning,) = note([0.8] * (OFTEN - 1))
    assert (warning["backend"], warning["model"], "shift" in warning["why"]) == ("ollama", "m", True)
    assert note([0.8] * (OFTEN - 1)) == []
    assert loads.took("ollama", "m") == 0.8
    clock[0] += WITHIN_S + 1
    assert note([0.8]) == []
    assert loads.took("ollama", "n") is None
