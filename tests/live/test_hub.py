"""A model that is not on this machine: brought from a hub, served by a real vLLM, and served again without the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.hub import FakeHub
from tests.journeys.gateway import until
from tests.live.engines import MODELS, Live, backend, config

COMMIT = "c0ffee" * 6 + "c0de"


@pytest.mark.parametrize("is_restarted", [False, pytest.param(True, marks=pytest.mark.full)])
def test_a_model_of_the_hub_is_brought_and_served_and_needs_the_hub_no_more(tmp_path: Path, is_restarted: bool) -> None:
    with FakeHub() as hub:
        hub.add("org/tiny", MODELS / "tiny", COMMIT)
        hub.stops_at = 0
        env = f'{{HF_ENDPOINT: "{hub.url}", HF_HOME: "{tmp_path / "hub"}", HF_TOKEN: hf_nobody-may-see-it}}'
        section = backend("tiny", env=env[:-1] + ', OMP_NUM_THREADS: "1", VLLM_CPU_OMP_THREADS_BIND: nobind}')
        with Live(tmp_path, config(section.replace(str(MODELS / "tiny"), "org/tiny"))) as gateway:
            assert gateway.url
            until(lambda: "downloading " in (gateway.backend("tiny")["reason"] or ""))
            assert gateway.backend("tiny")["generation"] == 0
            hub.goes_on.set()

            first = gateway.ready("tiny")
            argv = Path(f"/proc/{first['pid']}/cmdline").read_text()
            assert f"--revision={COMMIT}" in argv
            assert "hf_nobody" not in argv
            assert gateway.group("tiny").environ("HF_HUB_OFFLINE") == "1"
            assert gateway.errors is not None
            assert "hf_nobody" not in gateway.errors.read_text()
            assert _answers(gateway)
        asked = len(hub.asked)

        if is_restarted:
            with Live(tmp_path, config(section.replace(str(MODELS / "tiny"), "org/tiny"))) as gateway:
                gateway.ready("tiny")
                assert _answers(gateway)
        assert len(hub.asked) == asked


def _answers(gateway: Live) -> bool:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    reply = gateway.post("/v1/chat/completions", body)
    return reply.status_code == 200 and reply.json()["usage"]["completion_tokens"] > 0
