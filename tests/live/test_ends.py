"""How the end of a real vLLM is explained, what stays of it, and what the requests around its end get."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.gateway import until
from tests.live.engines import GONE_S, MODELS, START_S, Live, Record, backend, config

SHORT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    section = backend("tiny", enable_lora="true")
    with Live(tmp_path_factory.mktemp("ends"), config(section, server=f"{{drain_s: 5, wait_s: {START_S:g}}}")) as live:
        live.ready("tiny")
        yield live


def cut_adapter(folder: Path) -> Path:
    """One whose weights end too early."""
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((MODELS / "tiny-lora/adapter_config.json").read_bytes())
    weights = (MODELS / "tiny-lora/adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(weights[: len(weights) // 2])
    return folder


@pytest.mark.full
def test_a_kill_is_no_broken_adapter_and_its_log_stays(gateway: Live, tmp_path: Path, record_property: Record) -> None:
    before, group = gateway.ready("tiny"), gateway.group("tiny")
    order = {"name": "law", "path": str(cut_adapter(tmp_path / "law"))}
    refused = gateway.post_admin("/admin/backends/tiny/adapters/load", order)
    lines = gateway.ask("/admin/backends/tiny/logs")["lines"]

    group.kill(group.server)
    after = gateway.ready("tiny", before["generation"] + 1)

    last = gateway.ask("/admin/backends/tiny/logs?life=-1")
    record_property("the refused adapter", refused.json()["error"]["message"])
    record_property("in its log", [line[:150] for line in lines if "Error" in line][-2:])
    record_property("the reason given", after["last_failure"]["reason"])
    assert refused.status_code == 422
    assert after["last_failure"]["reason"].startswith("it was killed from outside")
    assert after["restarts"] == before["restarts"] + 1
    assert last["life"] == before["generation"]
    assert set(lines) & set(last["lines"])
    assert last["lives"][-2]["reason"] == after["last_failure"]["reason"]
    assert gateway.ask("/admin/models")["models"][0]["last_failure"]["reason"] == after["last_failure"]["reason"]


@pytest.mark.full
@pytest.mark.parametrize("title", ["VLLM::EngineCore", "VLLM::Worker"])
def test_requests_around_the_end_of_a_core_or_worker(gateway: Live, title: str, record_property: Record) -> None:
    """What was in it is a 502; what it refuses, and all that come later, are held until it serves again."""
    before, group = gateway.ready("tiny"), gateway.group("tiny")
    seen: list[tuple[float, float, int, str]] = []
    killed = time.monotonic()

    def ask(stream: bool) -> None:
        sent = time.monotonic()
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json={**SHORT, "stream": stream}, timeout=START_S)
        code = "" if answer.status_code == 200 else answer.json()["error"]["code"]
        seen.append((sent - killed, time.monotonic() - sent, answer.status_code, code))

    group.kill(*group.named(title))
    asking = [threading.Thread(target=ask, args=(bool(number % 2),)) for number in range(40)]
    for thread in asking:
        thread.start()
        time.sleep(0.1)  # a client's pace
    until(lambda: gateway.backend("tiny")["state"] != "ready", GONE_S)
    for thread in asking:
        thread.join()
    gateway.ready("tiny", before["generation"] + 1)

    failed = [each for each in seen if each[2] != 200]
    record_property("answers", dict(Counter(f"{status} {code}".strip() for _, _, status, code in seen)))
    record_property("sent when they failed", [f"{at:.2f} s after the kill" for at, _, _, _ in failed])
    record_property("the reason given", gateway.backend("tiny")["last_failure"]["reason"])
    assert len(seen) == len(asking)
    assert {code for _, _, _, code in failed} <= {"engine_failed", "engine_disconnected"}
    assert all(at < 1.0 for at, _, _, _ in failed)
