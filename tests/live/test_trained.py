"""A trained model: an adapter that was really trained, and prompts so long that one thread is silent over them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.journeys.gateway import until
from tests.live.engines import MODELS, START_S, Live, Record, backend, config

STALL_S = 12  # of the counters; each test of a suspicion takes as long again
PROMPT = 6000  # tokens: more than a minute on one thread would be too much even for an engine that computes
TAUGHT = MODELS / "smollm2-lora" / "taught.json"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The demo model with its whole context, on one thread, which takes every prompt in one piece."""
    room = {"max_model_len": "8192", "kv_cache_memory_bytes": "536870912", "args": "--max-num-batched-tokens 8192"}
    base = backend("base", "smollm2", **room, enable_lora="true", stall_timeout_s=str(STALL_S))
    with Live(tmp_path_factory.mktemp("trained"), config(base)) as program:
        program.ready("base")
        yield program


def answer(gateway: Live, model: str, question: str) -> str:
    """What it answers; empty where that is not a valid response."""
    asked = [{"role": "user", "content": question}]
    body = {"model": model, "messages": asked, "max_tokens": 32, "temperature": 0}
    reply = gateway.post("/v1/chat/completions", body)
    return str(reply.json()["choices"][0]["message"]["content"]) if reply.is_success else ""


def first_token_s(gateway: Live, prompt: Any) -> tuple[float, bool]:
    """Seconds until the first token of one long prompt, and whether its stream ended properly."""
    body = {"model": "base", "prompt": prompt, "max_tokens": 4, "ignore_eos": True, "stream": True}
    began, first, ended = time.monotonic(), 0.0, False
    with httpx.stream("POST", f"{gateway.base_url}/completions", json=body, timeout=START_S) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {") and not first:
                first = time.monotonic() - began
            ended = ended or line == "data: [DONE]"
    return first, ended


def left_alone(gateway: Live) -> str:
    """Fail unless the first start still serves; returns what the gateway logged."""
    base = gateway.backend("base")
    assert (base["state"], base["generation"], base["restarts"]) == ("ready", 1, 0)
    assert gateway.errors is not None
    return gateway.errors.read_text()


@pytest.mark.full
def test_a_slow_first_answer_is_not_taken_for_an_engine_that_is_stuck(gateway: Live, record_property: Record) -> None:
    silent_s, ended = first_token_s(gateway, [100 + at % 1000 for at in range(PROMPT)])

    record_property("silent", f"{silent_s:.1f} s over {PROMPT} tokens in one piece, stall_timeout_s {STALL_S}")
    assert ended
    assert "stands still" not in left_alone(gateway)


@pytest.mark.full
def test_a_long_prefill_is_not_taken_for_an_engine_that_is_stuck(gateway: Live, record_property: Record) -> None:
    """The same again, and now that it has served it is suspected; but it computes."""
    assert answer(gateway, "base", "What is 7+5?")
    silent_s, ended = first_token_s(gateway, [1100 - at % 1000 for at in range(PROMPT)])

    log = left_alone(gateway)
    record_property("silent", f"{silent_s:.1f} s over {PROMPT} tokens in one piece, stall_timeout_s {STALL_S}")
    record_property(
        "suspected",
        f"{log.count('stands still')} times; left alone because it computes: {log.count('engine computes')} times",
    )
    assert ended


def test_an_adapter_that_was_trained_knows_what_it_was_taught_and_does_so_after_a_crash(
    gateway: Live, record_property: Record
) -> None:
    taught: dict[str, str] = json.loads(TAUGHT.read_text())
    some = list(taught)[:3]
    before = {question: answer(gateway, "base", question) for question in some}
    loaded = gateway.post("/admin/backends/base/adapters/load", {"name": "taught", "path": str(TAUGHT.parent)})
    assert loaded.status_code == 200, loaded.text

    answers = {question: answer(gateway, "taught", question) for question in taught}
    again = {question: answer(gateway, "base", question) for question in some}

    record_property("taught answers", f"{sum(answers[each] == taught[each] for each in taught)} of {len(taught)}")
    record_property("of them by the base", f"{sum(before[each] == taught[each] for each in some)} of {len(some)}")
    assert answers == taught
    assert again == before
    assert not set(before.values()) & set(taught.values())
    group, began = gateway.group("base"), time.monotonic()
    group.kill(group.server)
    until(lambda: answer(gateway, "taught", some[0]) != "", START_S)
    record_property("killed; the adapter answers again after", f"{time.monotonic() - began:.1f} s")
    assert [answer(gateway, "taught", question) for question in some] == [taught[question] for question in some]
    assert gateway.backend("base")["generation"] == 2
