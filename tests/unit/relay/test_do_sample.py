"""`do_sample`, which clients of Hugging Face and LLaMA-Factory send: without sampling the likeliest token is taken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from app.table import Rules
from tests.fakes import wire
from tests.fakes.scripted import Json, Scripted, whole
from tests.rigs.relay import Rig, backend, models, running

DEFAULTS = {"temperature": 0.95, "top_p": 0.7, "max_tokens": 1024}
RULES = {"plain": Rules(), "defaults": Rules(defaults=DEFAULTS), "fixed": Rules(overrides={"temperature": 0.5})}


def behave(_: str, body: Json) -> bytes:
    return whole(wire.answer(wire.Ask("completions" if "prompt" in body else "chat", "m")))


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Scripted]:
    async with Scripted(behave) as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: Scripted) -> AsyncIterator[Rig]:
    rows = {kind: backend(engine.url, kind, kind=kind) for kind in ("vllm", "llama_cpp")}
    served = {
        f"{kind}-{name}": msgspec.structs.replace(models("m", backend=kind)["m"], name=f"{kind}-{name}", rules=rules)
        for kind in rows
        for name, rules in RULES.items()
    }
    async with running(rows, served) as gateway:
        yield gateway


@pytest.mark.parametrize("kind", ["vllm", "llama_cpp"])
@pytest.mark.parametrize(
    ("rules", "asked", "temperature", "told"),
    [
        ("plain", {"do_sample": False}, 0, {"x-modelport-adjusted-params": "do_sample"}),
        ("plain", {"do_sample": False, "temperature": 0.8}, 0, {"x-modelport-adjusted-params": "do_sample"}),
        ("defaults", {"do_sample": False}, 0, {"x-modelport-adjusted-params": "do_sample"}),
        ("defaults", {"do_sample": True}, 0.95, {}),
        ("defaults", {"do_sample": None}, 0.95, {}),
        ("plain", {"do_sample": True, "temperature": 0.8}, 0.8, {}),
        ("fixed", {"do_sample": False}, 0.5, {"x-modelport-dropped-params": "do_sample"}),
        ("plain", {"do_sample": "no"}, None, {"x-modelport-dropped-params": "do_sample"}),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_without_sampling_the_temperature_is_0(
    rig: Rig,
    engine: Scripted,
    kind: str,
    rules: str,
    asked: dict[str, Any],
    temperature: float | None,
    told: dict[str, str],
    path: str,
) -> None:
    content: dict[str, Any] = {"prompt": "Hi"}
    if path.endswith("chat/completions"):
        content = {"messages": [{"role": "user", "content": "Hi"}]}

    reply = await rig.ask(path, {"model": f"{kind}-{rules}", **content, **asked})

    assert reply.status == 200, reply.body
    assert engine.last.get("temperature") == temperature
    assert {name: value for name, value in reply.headers.items() if "-params" in name and "do_sample" in value} == told
