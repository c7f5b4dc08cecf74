"""Real engines of other shapes: two at once, two workers, embeddings, one that cannot serve; and failing starts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.journeys.gateway import until
from tests.live.engines import GONE_S, START_S, Live, Record, backend, config, is_alive, shared_memory

LONG_S = 5.0  # several times what an engine that stands still would be given
CHAT = {"messages": [{"role": "user", "content": "Say something."}], "max_tokens": 4}


@pytest.mark.full
def test_two_engines_of_which_one_has_two_workers_answer_by_name_on_this_machine_only(
    tmp_path: Path, record_property: Record
) -> None:
    before = shared_memory()
    sections = (backend("pair", tensor_parallel_size="2"), backend("embedder", task="embed", stall_timeout_s="1"))
    with Live(tmp_path, config(*sections)) as gateway:
        gateway.ready("pair")
        gateway.ready("embedder")
        pair, embedder = gateway.group("pair"), gateway.group("embedder")
        family = [*pair.pids, *embedder.pids]

        chat = gateway.post("/v1/chat/completions", {"model": "pair", **CHAT})
        vector = gateway.post("/v1/embeddings", {"model": "embedder", "input": ["one", "two"]})

        assert chat.status_code == 200
        assert chat.json()["model"] == "pair"
        assert [len(each["embedding"]) for each in vector.json()["data"]] == [128, 128]
        assert len(pair.named("VLLM::Worker_TP")) == 2
        assert pair.listeners() == {"127.0.0.1"}
        assert embedder.listeners() == {"127.0.0.1"}
        record_property("listeners", f"{pair.listeners() | embedder.listeners()} of {len(family)} processes")
        record_property("embeddings", f"{_embed_for_long(gateway)} vectors in {LONG_S:g} s, stall_timeout_s 1")
        assert gateway.backend("embedder")["generation"] == 1
        assert "stands still" not in (tmp_path / "log").read_text()
    until(lambda: not any(map(is_alive, family)), GONE_S)
    assert shared_memory() <= before


def _embed_for_long(gateway: Live) -> int:
    """Keep a request running that makes no token which could be counted."""
    count, end = 0, time.monotonic() + LONG_S
    while time.monotonic() < end:
        reply = gateway.post("/v1/embeddings", {"model": "embedder", "input": ["one word and another"] * 200})
        assert reply.status_code == 200, reply.text
        count += len(reply.json()["data"])
    return count


@pytest.mark.full
def test_one_that_is_healthy_and_cannot_serve_is_never_ready(tmp_path: Path, record_property: Record) -> None:
    """Without a GPU pipeline parallel becomes healthy and dies of its first request."""
    with Live(tmp_path, config(backend("broken", pipeline_parallel_size="2"))) as gateway:
        assert gateway.url
        until(lambda: bool(gateway.backend("broken")["restarts"] >= 1), START_S)

        printed = (tmp_path / "log").read_text()
        reason = gateway.backend("broken")["reason"]

        record_property("pipeline parallel without a GPU", reason)
        assert "engine ready" not in printed
        assert "it is healthy, but its first request" in reason


FAILURES = {
    "an unknown argument": ({"args": "--no-such-flag"}, "this version of vLLM does not know the argument"),
    "too long a context": ({"max_model_len": "99999"}, "the model was made for 2048 tokens at most"),
    "too small a cache": ({"kv_cache_memory_bytes": "300000"}, "set `max_model_len` to"),
    "an unknown parser": ({"tool_call_parser": "nosuch"}, "vLLM has no tool call parser nosuch"),
}


@pytest.mark.parametrize(
    "case", [next(iter(FAILURES)), *(pytest.param(each, marks=pytest.mark.full) for each in list(FAILURES)[1:])]
)
def test_a_start_that_fails_is_told_to_the_client_in_one_sentence(
    tmp_path: Path, case: str, record_property: Record
) -> None:
    values, sentence = FAILURES[case]
    text = config(backend("wrong"))
    for key, value in values.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"    {key}:")]
        at = next(index for index, line in enumerate(lines) if "kind: vllm" in line)
        text = "\n".join([*lines[: at + 1], f"    {key}: {value}", *lines[at + 1 :], ""])
    with Live(tmp_path, text) as gateway:
        assert gateway.url
        until(lambda: bool(gateway.backend("wrong")["reason"]), START_S)

        reason = gateway.backend("wrong")["reason"]

        record_property("told", reason)
        assert sentence in reason
