"""The fleet's side on a real vLLM: it sleeps when it is idle, takes adapters while it runs, and is found stuck."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.gateway import until
from tests.live.engines import MODELS, START_S, Live, Record, backend, config
from tests.live.stream import Stream


@pytest.fixture(scope="module")
def sleepy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One engine with an adapter that rests after three seconds, and is stuck after five."""
    folder: Path = tmp_path_factory.mktemp("rooms")
    adapters = f"{{random: {MODELS / 'tiny-lora'}}}"
    resting = {"sleep": "1", "unload_after_s": "3", "stall_timeout_s": "5"}
    tiny = backend("tiny", memory_gb="2", adapters=adapters, **resting)
    with Live(folder, config(tiny, server="{drain_s: 20, memory_gb: 2}")) as gateway:
        gateway.ready("tiny")
        yield gateway


def chat(gateway: Live, model: str) -> tuple[int, str]:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0}
    reply = gateway.post("/v1/chat/completions", body)
    return reply.status_code, reply.json()["choices"][0]["message"]["content"] if reply.is_success else reply.text


def listed(gateway: Live) -> dict[str, Any]:
    return {each["id"]: each for each in httpx.get(f"{gateway.url}/v1/models").json()["data"]}


def test_an_idle_engine_sleeps_and_the_next_request_wakes_it(sleepy: Live) -> None:
    before = chat(sleepy, "tiny"), chat(sleepy, "random")
    pid = sleepy.backend("tiny")["pid"]
    until(lambda: bool(sleepy.backend("tiny")["state"] == "sleeping"))
    assert sleepy.group("tiny").ask("/is_sleeping").json() == {"is_sleeping": True}
    assert listed(sleepy)["tiny"]["state"] == "sleeping"

    after = chat(sleepy, "random"), chat(sleepy, "tiny")

    assert [status for status, _ in (*before, *after)] == [200] * 4
    assert after == before[::-1], "it says the same as before, and the adapter is still there"
    assert before[0] != before[1]
    assert sleepy.backend("tiny")["pid"] == pid
    assert sleepy.backend("tiny")["generation"] == 1


def test_what_it_took_is_in_the_plan(sleepy: Live) -> None:
    [seat] = sleepy.ask("/admin/plan")["seats"]

    assert seat["measured_gb"] > 0.5
    assert seat["kv_tokens"]


def test_an_adapter_is_loaded_at_run_time_and_again_after_a_crash(sleepy: Live) -> None:
    order = {"name": "second", "path": str(MODELS / "tiny-lora")}
    assert chat(sleepy, "second")[0] == 404
    until(lambda: bool(chat(sleepy, "tiny")[0] == 200))  # awake

    loaded = sleepy.post("/admin/backends/tiny/adapters/load", order)

    assert loaded.status_code == 200, loaded.text
    assert listed(sleepy)["second"]["parent"] == "tiny"
    first = chat(sleepy, "second")
    assert first[0] == 200
    sleepy.group("tiny").kill(*sleepy.group("tiny").named("VLLM::EngineCore"))
    # It may be put to sleep, which fails, before it is known to be dead: then the next request starts it.
    until(lambda: chat(sleepy, "second") == first, START_S)
    assert chat(sleepy, "random") == first
    assert sleepy.backend("tiny")["generation"] == 2


def test_an_engine_that_is_stuck_with_a_request_is_started_anew(sleepy: Live, record_property: Record) -> None:
    """Its second request follows the first at once: it has served all the same, and so it can be suspected."""
    assert chat(sleepy, "tiny")[0] == 200
    generation, group = sleepy.backend("tiny")["generation"], sleepy.group("tiny")
    stream = Stream(sleepy.url)
    began = time.monotonic()
    group.kill(*group.named("VLLM::EngineCore"), number=signal.SIGSTOP)

    until(lambda: bool(sleepy.backend("tiny")["state"] != "ready"), START_S)
    noticed_s = time.monotonic() - began
    stream.wait()
    record_property("noticed after", f"{noticed_s:.1f} s, with stall_timeout_s 5")
    record_property("the client's stream", f"{stream.error} after {stream.ended_at - began:.1f} s")
    sleepy.ready("tiny", generation + 1)
    record_property("ready again after", f"{time.monotonic() - began:.1f} s")

    assert stream.is_cut
    assert sleepy.errors is not None
    assert "stood still for 5 s with requests in it" in sleepy.errors.read_text()


@pytest.mark.full
def test_an_engine_that_was_stuck_before_its_only_request_is_started_anew(
    sleepy: Live, record_property: Record
) -> None:
    """vLLM does not count a request with which its core has made no step."""
    assert chat(sleepy, "tiny")[0] == 200
    generation, group = sleepy.backend("tiny")["generation"], sleepy.group("tiny")
    group.kill(*group.named("VLLM::EngineCore"), number=signal.SIGSTOP)
    began = time.monotonic()

    status, body = chat(sleepy, "tiny")

    record_property("the client's answer", f"{status} after {time.monotonic() - began:.1f} s, with stall_timeout_s 5")
    sleepy.ready("tiny", generation + 1)
    record_property("ready again after", f"{time.monotonic() - began:.1f} s")
    assert (status, "engine_disconnected" in body) == (502, True)
    assert chat(sleepy, "tiny")[0] == 200
