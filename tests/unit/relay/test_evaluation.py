"""LLaMA-Factory's `/v1/score/evaluation`: scores where a reward model is served, its own 405 where none is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.scripted import Json, Scripted, whole
from tests.rigs.relay import Rig, backend, models, running

PATH = "/v1/score/evaluation"
NOT_FOUND = (
    b'HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 22\r\n\r\n{"detail":"Not Found"}'
)
# What vLLM answers, by the name of its model.
ANSWERS: dict[str, Any] = {
    "short": {"data": [{"index": 0, "probs": [1.0]}]},
    "classes": {"data": [{"probs": [0.1, 0.9]}, {"probs": [0.5, 0.5]}]},
    "foreign": {"hello": "world"},
}


def behave(path: str, body: Json) -> bytes:
    if body["model"] == "writer":
        return NOT_FOUND
    assert path == "/classify"
    scores = [{"index": at, "probs": [len(text) / 2 - 3]} for at, text in enumerate(body["input"])]
    return whole(ANSWERS.get(body["model"], {"object": "list", "data": scores}))


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Scripted]:
    async with Scripted(behave) as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: Scripted) -> AsyncIterator[Rig]:
    rows = {kind: backend(engine.url, kind, kind=kind) for kind in ("vllm", "llama_cpp")}
    served = {name: models(name, backend="vllm")[name] for name in ("reward", "writer", *ANSWERS)}
    async with running(rows, {**served, **models("embedded", backend="llama_cpp")}) as gateway:
        yield gateway


async def test_a_reward_model_scores_each_text(rig: Rig, engine: Scripted) -> None:
    reply = await rig.ask(PATH, {"model": "reward", "messages": ["ab", "abcdefgh"], "max_length": 64})

    assert reply.status == 200
    assert reply.json["id"].startswith("scoreval-")
    assert reply.json == {
        "id": reply.json["id"],
        "object": "score.evaluation",
        "model": "reward",
        "scores": [-2.0, 1.0],
    }
    assert engine.last == {
        "model": "reward",
        "input": ["ab", "abcdefgh"],
        "use_activation": False,
        "truncate_prompt_tokens": 64,
        "truncation_side": "right",
    }


@pytest.mark.parametrize("name", ["writer", "embedded"])
async def test_a_model_that_writes_text_is_a_405_as_there(rig: Rig, name: str) -> None:
    reply = await rig.ask(PATH, {"model": name, "messages": ["ab"]})

    assert (reply.status, reply.json["detail"]) == (405, "Not allowed")
    assert reply.error["code"] == "not_supported"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "text"}, "messages"),
        ({"messages": ["a"], "max_length": 0}, "max_length"),
        ({}, "messages"),
    ],
)
async def test_what_is_not_such_a_request_is_a_400(rig: Rig, engine: Scripted, fields: Json, param: str) -> None:
    reply = await rig.ask(PATH, {"model": "reward", **fields})

    assert (reply.status, reply.error["param"]) == (400, param)
    assert reply.json["detail"] == reply.error["message"]
    assert engine.bodies == []


@pytest.mark.parametrize("name", ANSWERS)
async def test_other_than_one_score_for_each_text_is_the_engines_failure(rig: Rig, name: str) -> None:
    reply = await rig.ask(PATH, {"model": name, "messages": ["ab", "cd"]})

    assert (reply.status, reply.error["code"]) == (502, "engine_broken_answer")
