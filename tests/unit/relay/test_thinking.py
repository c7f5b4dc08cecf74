"""Thinking through a real relay: split from the text where that is configured, and read in the history."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from app.table import Backend
from tests.fakes.engine import FakeEngine
from tests.fakes.shapes import SAID, TAGGED, THOUGHT
from tests.rigs.raw_client import Reply, chat
from tests.rigs.relay import Rig, backend, models, running

pytestmark = pytest.mark.asyncio(loop_scope="module")
EITHER = pytest.mark.parametrize("stream", [False, True])
SPLIT = pytest.mark.parametrize("model", ["split", "gathered"])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        fake.script(default="thinks")
        yield fake


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    backends = {"engine": backend(engine.url), "gatherer": gathering(backend(engine.url, "gatherer"))}
    served = models("keep", engine_name="fake")
    for name, where in (("split", "engine"), ("gathered", "gatherer")):
        model = models(name, backend=where, engine_name="fake")[name]
        served[name] = msgspec.structs.replace(model, reasoning="split")
    async with running(backends, served) as gateway:
        yield gateway


def gathering(one: Backend) -> Backend:
    """Asked for a stream where the client wants a whole answer."""
    assert one.endpoint is not None
    return msgspec.structs.replace(one, endpoint=msgspec.structs.replace(one.endpoint, gathers=True))


def told(reply: Reply, name: str) -> str:
    """Everything that was said under a name."""
    if reply.headers["content-type"].startswith("application/json"):
        return str(reply.json["choices"][0]["message"].get(name) or "")
    chunks = [event for event in reply.events if event != "[DONE]"]
    return "".join(choice["delta"].get(name) or "" for chunk in chunks for choice in chunk["choices"])


@EITHER
async def test_tags_in_the_text_are_left_alone_by_default(rig: Rig, stream: bool) -> None:
    reply = await rig.ask(body=chat("keep", stream=stream))

    assert (told(reply, "content"), told(reply, "reasoning")) == (TAGGED, "")


@EITHER
@SPLIT
async def test_tags_become_thinking_where_that_is_configured(rig: Rig, model: str, stream: bool) -> None:
    reply = await rig.ask(body=chat(model, stream=stream))

    assert told(reply, "content") == SAID
    assert told(reply, "reasoning") == told(reply, "reasoning_content") == THOUGHT


async def test_what_is_split_is_counted_once(rig: Rig) -> None:
    counts = {}
    for model in ("keep", "split"):
        before = rig.sample("gen_ai_client_token_usage_sum", gen_ai_token_type="output")
        await rig.ask(body=chat(model, stream=True))
        counts[model] = rig.sample("gen_ai_client_token_usage_sum", gen_ai_token_type="output") - before

    assert counts["keep"] == counts["split"] > 0


@EITHER
async def test_clients_of_other_dialects_have_it_too(rig: Rig, stream: bool) -> None:
    body: Any = chat("split", stream=stream, max_tokens=100)

    reply = await rig.ask("/v1/messages", body)

    if stream:
        deltas = [event["delta"] for event in reply.events if event["type"] == "content_block_delta"]
        assert "".join(delta.get("thinking", "") for delta in deltas) == THOUGHT
        assert "".join(delta.get("text", "") for delta in deltas) == SAID
    else:
        thinking, text = reply.json["content"]
        assert (thinking["thinking"], text["text"]) == (THOUGHT, SAID)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_the_engine_reads_earlier_thinking_under_its_own_name(engine: FakeEngine, rig: Rig, name: str) -> None:
    earlier = {"role": "assistant", "content": SAID, name: THOUGHT}

    await rig.ask(body={"model": "keep", "messages": [earlier, {"role": "user", "content": "And 7-5?"}]})

    sent = json.loads(engine.posts[-1].body)["messages"][0]
    assert sent == {"role": "assistant", "content": SAID, "reasoning": THOUGHT, "reasoning_content": THOUGHT}
