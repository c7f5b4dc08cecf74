"""What a client is told while a model is brought here: over a real relay, with a table that the test writes."""

from __future__ import annotations

import asyncio
import json

from app.table import Limits
from backends.endpoint import State
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import backend, models, running

DOWNLOADING = backend(None, state=State.STARTING, can_start=True, reason="downloading 43 % of 16.1 GB")
BODY = json.dumps(chat(stream=True)).encode()


async def test_who_waited_in_vain_is_told_how_far_it_was() -> None:
    async with running({"engine": DOWNLOADING}, models("fake"), Limits(wait_s=0.1)) as rig:
        reply = await rig.ask(body=chat())

    assert reply.status == 503
    assert "it is not ready after 2.1 s (downloading 43 % of 16.1 GB)" in reply.error["message"]


async def test_the_comments_of_a_held_stream_say_how_far_it_is_now() -> None:
    stopped = backend(None, can_start=True)
    async with (
        running({"engine": stopped}, models("fake"), Limits(hold_s=0.05)) as rig,
        asyncio.timeout(20),
        Client(rig.url) as client,
    ):
        client.send(request("POST", "/v1/chat/completions", BODY))
        await client.reader.readuntil(b": waiting for fake (stopped)\n\n")

        await rig.published(backends={"engine": DOWNLOADING})
        await client.reader.readuntil(b": waiting for fake (starting: downloading 43 % of 16.1 GB)\n\n")


async def test_a_reason_of_several_lines_is_one_comment() -> None:
    failing = backend(None, state=State.STARTING, can_start=True, reason="it exited\n\ndata: {}\r\n")
    async with (
        running({"engine": failing}, models("fake"), Limits(hold_s=0.05)) as rig,
        asyncio.timeout(20),
        Client(rig.url) as client,
    ):
        client.send(request("POST", "/v1/chat/completions", BODY))

        await client.reader.readuntil(b": waiting for fake (starting: it exited data: {})\n\n")
