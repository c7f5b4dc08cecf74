"""Every dialect's requests are in the same series, and none of their names makes a new one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.relay.routes.route import POST
from tests.fakes import wire
from tests.fakes.engine import FakeEngine
from tests.fakes.ollama import FakeOllama
from tests.rigs import ollama
from tests.rigs.relay import Rig, backend, models, running
from tests.rigs.route_table import rows_only

WORDS = len(wire.WORDS)
CONVERSATION = [{"role": "user", "content": "hi"}]
# Of each dialect a request, without its model.
DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": CONVERSATION},
    "/v1/completions": {"prompt": "hi"},
    "/v1/messages": {"messages": CONVERSATION, "max_tokens": 64},
    "/v1/responses": {"input": "hi"},
    "/api/chat": {"messages": CONVERSATION},
    "/api/generate": {"prompt": "hi"},
}
REST: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": "hi"},
    "/v1/rerank": {"query": "hi", "documents": ["a"]},
    "/v1/score": {"text_1": "hi", "text_2": "ho"},
    "/v1/score/evaluation": {"messages": CONVERSATION},
    "/v1/tokenize": {"prompt": "hi"},
    "/v1/detokenize": {"tokens": [1]},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [1]},
    "/v1/messages/count_tokens": {"messages": CONVERSATION},
    "/v1/chat/completions/render": {"messages": CONVERSATION},
    "/api/embed": {"input": "hi"},
    "/api/embeddings": {"prompt": "hi"},
    "/api/show": {},
    "/v1/compare": {"messages": CONVERSATION},
}
OTHERWISE = {"/v1/audio/transcriptions", "/v1/compare/votes"}  # a form; no model


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    async with (
        FakeEngine(("fake",)) as engine,
        running({"engine": backend(engine.url)}, models("fake")) as gateway,
    ):
        yield gateway


async def settled(rig: Rig) -> None:
    await rig.fleet.until(lambda: rig.leases.total() == 0)


def series(rig: Rig) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """All that a scrape would show, without values."""
    return {(sample.name, tuple(sorted(sample.labels.items()))) for sample in rig.samples()}


def tokens(rig: Rig) -> tuple[float, float]:
    name = "gen_ai_client_token_usage_sum"
    return rig.sample(name, gen_ai_token_type="input"), rig.sample(name, gen_ai_token_type="output")


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", DIALECTS)
async def test_a_request_of_each_dialect_is_counted_whole(rig: Rig, path: str, is_stream: bool) -> None:
    reply = await rig.ask(path, {"model": "fake", "stream": is_stream, **DIALECTS[path]})
    assert reply.status == 200
    await settled(rig)

    assert tokens(rig) == (12, WORDS)
    assert rig.sample("gen_ai_server_request_duration_seconds_count", modelport_backend="engine", error_type="") == 1
    assert rig.sample("gen_ai_server_time_to_first_token_seconds_count") == is_stream
    assert rig.sample("gen_ai_server_time_per_output_token_seconds_count") == is_stream
    assert rig.sample("modelport_in_flight") == 0


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", DIALECTS)
async def test_so_is_one_that_ollama_answers(path: str, is_stream: bool) -> None:
    async with FakeOllama() as daemon, ollama.gateway(daemon) as rig:
        reply = await rig.ask(path, {"model": "smollm2:135m", "stream": is_stream, **DIALECTS[path]})
        assert reply.status == 200
        await settled(rig)

        spent = tokens(rig)
        assert min(spent) > 0
        assert rig.sample("gen_ai_server_request_duration_seconds_count", error_type="") == 1
        assert rig.sample("gen_ai_server_time_to_first_token_seconds_count") == is_stream
        assert rig.sample("gen_ai_server_time_per_output_token_seconds_count") == is_stream


def test_every_route_that_takes_a_model_is_here() -> None:
    posts = {row.path for row in rows_only().rows if row.methods and "POST" in row.methods and row.is_exact}

    assert POST[0] == "POST"
    assert posts == {*DIALECTS, *REST, *OTHERWISE}


async def test_names_that_nobody_knows_add_no_series_on_any_route(rig: Rig) -> None:
    requests = {**DIALECTS, **REST}

    async def ask_all(name: str) -> None:
        for path, body in requests.items():
            asked = {"models": [name, f"{name}-2"]} if path == "/v1/compare" else {"model": name}
            assert (await rig.ask(path, {**body, **asked})).status == 404, path
            await rig.ask(f"/v1/models/{name}", b"")

    await ask_all("first")
    before = series(rig)
    for number in range(10):
        await ask_all(f"unknown-{number}")

    assert series(rig) == before
    assert rig.sample("modelport_rejected_requests_total", reason="model_not_found") == 11 * 2 * len(requests)
