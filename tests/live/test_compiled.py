"""The code for requests with `logprobs` is compiled before the engine serves, and kept for its next start."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.live.engines import COMPILED, Live, Record, backend, config

RANKED: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 2,
    "logprobs": True,
    "top_logprobs": 3,
}


def compiled(folder: Path) -> set[str]:
    """The files of machine code in a cache."""
    return {path.name for path in folder.rglob("*.so")}


def asked(gateway: Live) -> str:
    """How long one request with `logprobs` takes, in seconds."""
    began = time.monotonic()
    answer = gateway.post("/v1/chat/completions", RANKED)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["logprobs"]["content"]
    return f"{time.monotonic() - began:.2f} s"


def test_a_request_with_logprobs_finds_everything_compiled(live: Live, record_property: Record) -> None:
    before = compiled(COMPILED)

    record_property("a request with logprobs", asked(live))

    assert before
    assert compiled(COMPILED) == before


@pytest.mark.full
def test_it_compiles_before_it_serves_and_never_again(tmp_path: Path, record_property: Record) -> None:
    alone = backend("tiny", env='{OMP_NUM_THREADS: "1", VLLM_CPU_OMP_THREADS_BIND: nobind}')
    with Live(tmp_path, config(alone)) as gateway:
        first = gateway.ready("tiny")
        made = compiled(gateway.state / "compiled")
        record_property("the first start", f"{first['load_s']:.1f} s")
        record_property("its first request with logprobs", asked(gateway))
        after = compiled(gateway.state / "compiled")
        group = gateway.group("tiny")
        group.kill(group.server)
        second = gateway.ready("tiny", first["generation"] + 1)
        record_property("the second start", f"{second['load_s']:.1f} s")
        record_property("its first request with logprobs then", asked(gateway))

        assert made
        assert after == made
        assert compiled(gateway.state / "compiled") == made
