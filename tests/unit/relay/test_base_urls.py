"""A client with a wrong base URL is told which one is right: over a real relay."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.rigs.relay import Rig, backend, models, running


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running({"engine": backend(None)}, models("fake")) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1//models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/v1/v1/models", "/v1/models"),
        ("/models", "/v1/models"),
        ("/V1/Models", "/v1/models"),
        ("/openai/v1/models", "/v1/models"),
        ("/api/v1/models", "/v1/models"),
        ("/v1/api/tags", "/api/tags"),
        ("/api//tags", "/api/tags"),
        ("/api/api/tags", "/api/tags"),
        ("/tags", None),
        ("/nowhere", None),
        ("/v1/nowhere", None),
        ("/" + "v1/" * 100 + "models", None),
    ],
)
async def test_a_path_that_ends_in_a_route_names_it(rig: Rig, path: str, meant: str | None) -> None:
    reply = await rig.ask(path)

    said = reply.json["error"] if isinstance(reply.json["error"], str) else reply.json["error"]["message"]
    assert reply.status == 404
    assert (f"Did you mean {meant}? The base URL" in said) is (meant is not None), said


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/v1//chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/completions", "/v1/completions"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/messages", "/v1/messages"),
        ("/v1/messages/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/v1/v1/responses", "/v1/responses"),
        ("/responses", "/v1/responses"),
        ("/v1/api/chat", "/api/chat"),
        ("/api/chat/", "/api/chat"),
        ("/v1/api/show", "/api/show"),
        ("/embeddings", "/v1/embeddings"),
        ("/audio/transcriptions", "/v1/audio/transcriptions"),
        ("/rerank", "/v1/rerank"),
    ],
)
async def test_so_does_one_that_is_posted_to(rig: Rig, path: str, meant: str) -> None:
    reply = await rig.ask(path, {"model": "fake"})

    assert reply.status == 404
    assert f"Did you mean {meant}? The base URL".encode() in reply.body


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/v1/", "/api/"])
async def test_a_base_url_is_told_that_it_is_one(rig: Rig, path: str) -> None:
    reply = await rig.ask(path)

    assert reply.status == 404
    assert b"This is a base URL" in reply.body
