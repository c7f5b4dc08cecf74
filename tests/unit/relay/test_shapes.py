"""Every broken stream that is known, read by openai-python through a real relay: the right text, or an error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from app.table import Limits
from tests.fakes.engine import FakeEngine
from tests.fakes.shapes import SHAPES
from tests.rigs.raw_client import chat
from tests.rigs.relay import Rig, backend, models, running

EVERY = pytest.mark.parametrize("name", SHAPES)
WHOLE = pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if not shape.is_error])
LIMITS = Limits(max_event_bytes=8 * 2**20)
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, models("public", engine_name="fake"), LIMITS) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(rig: Rig) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{rig.url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


def asking(**more: Any) -> Any:
    return {"model": "public", "messages": [{"role": "user", "content": "7+5?"}], **more}


@EVERY
async def test_a_reader_of_chunks_has_the_right_text_or_an_error(
    engine: FakeEngine, client: AsyncOpenAI, name: str
) -> None:
    shape = SHAPES[name]
    engine.script(f"shape_{name}")
    chunks: list[Any] = []
    failed: openai.APIError | None = None

    try:
        async for chunk in await client.chat.completions.create(**asking(stream=True)):
            chunks.append(chunk)  # noqa: PERF401  # those before a failure count
    except openai.APIError as exc:
        failed = exc

    assert (failed is not None) is shape.is_error, failed
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == shape.text
    for field in ("reasoning", "reasoning_content"):
        assert "".join(getattr(delta, field, None) or "" for delta in deltas) == shape.thinking


@WHOLE
async def test_the_stream_helper_puts_the_same_answer_together(
    engine: FakeEngine, client: AsyncOpenAI, name: str
) -> None:
    shape = SHAPES[name]
    engine.script(f"shape_{name}")

    async with client.chat.completions.stream(**asking()) as stream:
        answer = await stream.get_final_completion()

    message = answer.choices[0].message
    assert (message.role, message.content or "") == ("assistant", shape.text)
    assert [call.function.model_dump(include={"name", "arguments"}) for call in message.tool_calls or ()] == [
        call | {"arguments": call["arguments"].replace(": ", ":") if name == "call_object" else call["arguments"]}
        for call in shape.calls
    ]
    ids = [call.id for call in message.tool_calls or ()]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    assert answer.choices[0].finish_reason == ("tool_calls" if shape.calls else "stop")


@WHOLE
async def test_the_sdks_own_types_fit_each_chunk(engine: FakeEngine, rig: Rig, name: str) -> None:
    engine.script(f"shape_{name}")

    async with AsyncOpenAI(base_url=f"{rig.url}/v1", api_key="none", _strict_response_validation=True) as strict:
        chunks = [chunk async for chunk in await strict.chat.completions.create(**asking(stream=True))]

    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == SHAPES[name].text


@EVERY
async def test_each_event_is_what_openai_promises(engine: FakeEngine, rig: Rig, name: str) -> None:
    shape = SHAPES[name]
    engine.script(f"shape_{name}")

    reply = await rig.ask(body=chat("public", stream=True))

    ends = reply.events[-1:] if shape.is_error else ["[DONE]"]
    assert reply.events[-1:] == ends
    assert b"\r" not in reply.body
    assert reply.body.count(b"data:") == reply.body.count(b"data: ") == len(reply.events)
    assert_sound(reply.events[:-1])


def assert_sound(chunks: list[Mapping[str, Any]]) -> None:
    """Everything that a client may rely on."""
    begun: set[int] = set()
    finished: set[int] = set()
    calls: set[tuple[int, int]] = set()
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["model"] == "public"
        assert isinstance(chunk["choices"], list)
        for choice in chunk["choices"]:
            assert ("role" in choice["delta"]) is (choice["index"] not in begun)
            begun.add(choice["index"])
            assert choice["finish_reason"] is None or choice["index"] not in finished
            finished |= {choice["index"]} if choice["finish_reason"] else set()
            for call in choice["delta"].get("tool_calls") or ():
                is_new = (choice["index"], call["index"]) not in calls
                calls.add((choice["index"], call["index"]))
                assert ("id" in call) is ("name" in call["function"]) is is_new
                assert isinstance(call["function"]["arguments"], str)
                assert not is_new or (call["id"] and call["type"] == "function" and call["function"]["name"])
    assert len({chunk["id"] for chunk in chunks}) <= 1
    assert len({chunk["created"] for chunk in chunks}) <= 1
    assert all(type(chunk["created"]) is int and chunk["id"] for chunk in chunks)


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.is_error])
async def test_what_fails_before_the_first_event_is_a_status(
    engine: FakeEngine, client: AsyncOpenAI, name: str
) -> None:
    engine.script(f"first_{name}")

    with pytest.raises(openai.InternalServerError) as refused:
        await client.chat.completions.create(**asking(stream=True))

    assert refused.value.status_code == 502
