"""An engine that responds to every request as the test says: a status and an object, or the events of a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Self

from tests.fakes import wire
from tests.rigs.hop import Server

TalkerReply = tuple[int, object] | Sequence[object]
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 413: "Too Large", 422: "No", 500: "Oops"}


class Talker:
    """`behave` gets the path and the decoded body; `asked` are all that came."""

    def __init__(self, behave: Callable[[str, Any], TalkerReply]) -> None:
        self.behave = behave
        self.asked: list[tuple[str, Any]] = []
        self._server = Server(self._serve)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self.url = self._server.url
        return self

    async def __aexit__(self, *about: object) -> None:
        await self._server.__aexit__(*about)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            path, body = head.split(b" ")[1].decode(), json.loads(await reader.readexactly(length))
            self.asked.append((path, body))
            given = self.behave(path, body)
            if isinstance(given, tuple):
                status, answer = given
                text = answer.encode() if isinstance(answer, str) else wire.dumps(answer)
                writer.write(wire.whole(status, text, reason=_REASONS.get(status, "Whatever")))
            else:
                events = [wire.chunk(b"data: " + wire.dumps(each) + b"\n\n") for each in given]
                writer.write(wire.SSE_HEAD + b"".join(events) + wire.chunk(wire.DONE) + wire.LAST_CHUNK)


def whole(text: str = "ok") -> tuple[int, object]:
    """A whole response to a chat."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    return 200, {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [choice],
        "usage": usage,
    }


def piece(text: str, finish: str | None = None) -> dict[str, object]:
    """An event of a chat's stream."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": [choice]}
