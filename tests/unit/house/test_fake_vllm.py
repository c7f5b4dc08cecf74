"""The stand-in for vLLM's server shows the metrics that were recorded, as far as it has worked, and proves adapters."""

from __future__ import annotations

import re

import httpx

from backends.endpoint import Endpoint
from backends.vllm.config import VllmConfig
from backends.vllm.engine import Vllm
from backends.vllm.metrics import figures
from tests.fakes.vllm_server import RECORDED_REQUESTS, RECORDING, FakeVllm, page

RECORDED = RECORDING.read_text()
SAMPLE = re.compile(r"^([^#\n].*) (\S+)$", re.MULTILINE)


def samples(text: str) -> dict[str, float]:
    """The values of a page, by names with labels."""
    return {name: float(value) for name, value in SAMPLE.findall(text)}


def test_after_as_many_requests_it_shows_what_was_recorded() -> None:
    shown = samples(page(RECORDED, "base", requests=RECORDED_REQUESTS, is_busy=True))

    recorded = samples(RECORDED)
    assert len(recorded) > 400
    assert shown.keys() == recorded.keys()
    assert all(abs(shown[name] - value) <= 1e-4 * abs(value) for name, value in recorded.items())


def test_counters_grow_with_its_requests_and_gauges_fall_when_it_rests() -> None:
    less = samples(page(RECORDED, "other", requests=3, is_busy=True))
    more = samples(page(RECORDED, "other", requests=6, is_busy=False))

    tokens, waiting, most = (
        f'vllm:{name}{{engine="0",model_name="other"}}'
        for name in ("generation_tokens_total", "num_requests_waiting", "kv_cache_usage_perc")
    )
    assert more[tokens] == 2 * less[tokens] > 0
    assert less[waiting] > more[waiting] == 0
    assert less[most] > more[most] == 0


async def test_the_gateways_probe_takes_it_for_vllm_and_its_adapter_proves_itself() -> None:
    config = VllmConfig.model_validate({"kind": "vllm", "model": "org/m", "enable_lora": True})
    engine = Vllm("base", config)
    assert engine.adapters is not None
    async with (
        FakeVllm("base", "sesame") as server,
        httpx.AsyncClient(headers={"authorization": "Bearer sesame"}) as http,
    ):
        endpoint = Endpoint("base", 1, server.url, {"authorization": "Bearer sesame"})
        await http.post(f"{server.url}/load_lora_adapter", json={"lora_name": "law", "lora_path": "/law"})
        probe = await engine.probe(endpoint)
        proof = await engine.adapters.prove(endpoint, "law")
        listed = await engine.adapters.listed(endpoint)
        text = (await http.get(f"{server.url.removesuffix('/v1')}/metrics")).text

    assert probe.is_up
    assert probe.version == "0.32.0"
    assert probe.models == ("base", "law")
    assert listed == ("law",)
    assert proof.effect == 0.5
    assert figures(text.encode()) is not None
