"""An engine that counts what it was asked and what it sent: `python -m tests.rigs.metered_engine --first 0.01`.

It answers chats, completions and embeddings, whole and as streams, with usage. An answer has `max_tokens` tokens, but
never more than `--tokens`; its prompt has one token for every four bytes of its texts. `GET /metered?from=N` tells of
each request from the N-th on, in the order in which they came.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
PARTS = 16  # pieces of a streamed answer, at most, where its tokens take no time


@dataclass(slots=True)
class Metered:
    """One request that came. `at`, `ended_at`: Unix seconds; `request_id`: as the gateway passed it on; `said`: the
    begin of its last text; `is_whole`: the last byte of its answer was handed over before the connection was closed.
    """

    number: int
    at: float
    request_id: str
    path: str
    model: str
    said: str
    prompt_tokens: int
    completion_tokens: int
    streamed: bool
    ended_at: float | None = None
    is_whole: bool = False


@dataclass
class MeteredEngine:
    """`first_s`: until its first token; `pace_s`: between tokens; `tokens`: an answer has at most so many."""

    models: tuple[str, ...] = ("metered",)
    first_s: float = 0.0
    pace_s: float = 0.0
    tokens: int = 1_000_000
    requests: list[Metered] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = first.split(" ")
                if method == "POST":
                    await self._answer(reader, writer, path, headers, json.loads(body))
                else:
                    _send(writer, self._told(path))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _told(self, path: str) -> Json:
        url = urlsplit(path)
        if url.path == "/metered":
            begin = int(parse_qs(url.query).get("from", ["0"])[0])
            return {"requests": [asdict(each) for each in self.requests[begin:]]}
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, headers: dict[str, str], body: Json
    ) -> None:
        texts = _texts(body)
        wanted = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        request = Metered(
            len(self.requests),
            time.time(),
            headers.get("x-request-id", ""),
            path,
            str(body.get("model", "")),
            texts[-1][:80] if texts else "",
            sum(math.ceil(len(text.encode()) / 4) for text in texts),
            0 if path.endswith("/embeddings") else min(wanted, self.tokens),
            body.get("stream") is True,
        )
        self.requests.append(request)
        try:
            if request.streamed:
                await self._stream(reader, writer, request, body)
            else:
                await asyncio.sleep(self.first_s + self.pace_s * request.completion_tokens)
                _fail_where_gone(reader, writer)
                _send(writer, _whole(request))
                await writer.drain()
            request.is_whole = not writer.is_closing()
        finally:
            request.ended_at = time.time()

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Metered, body: Json
    ) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        await asyncio.sleep(self.first_s)
        _fail_where_gone(reader, writer)
        writer.write(head)
        count = request.completion_tokens if self.pace_s else min(request.completion_tokens, PARTS)
        for _ in range(count):
            writer.write(_event(_piece(request, " word", None)))
            if self.pace_s:
                await asyncio.sleep(self.pace_s)
                _fail_where_gone(reader, writer)
        writer.write(_event(_piece(request, "", "length")))
        if (body.get("stream_options") or {}).get("include_usage"):
            writer.write(_event(_piece(request, None, None) | {"usage": _usage(request)}))
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()


def _texts(body: Json) -> list[str]:
    """The texts of a request's prompt."""
    if "messages" in body:
        contents = [message.get("content") or "" for message in body["messages"]]
        return [content if isinstance(content, str) else json.dumps(content) for content in contents]
    given = body.get("prompt", body.get("input", ""))
    return [str(each) for each in given] if isinstance(given, list) else [str(given)]


def _usage(request: Metered) -> Json:
    total = request.prompt_tokens + request.completion_tokens
    sent = {"prompt_tokens": request.prompt_tokens, "completion_tokens": request.completion_tokens}
    return sent | {"total_tokens": total}


def _frame(request: Metered, kind: str, choices: list[Json]) -> Json:
    named = {"id": f"chatcmpl-{request.number}", "object": kind, "created": int(request.at), "model": request.model}
    return named | {"choices": choices}


def _piece(request: Metered, text: str | None, finish: str | None) -> Json:
    if "/chat/" in request.path:
        choices: list[Json] = [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]
        return _frame(request, "chat.completion.chunk", [] if text is None else choices)
    choices = [{"index": 0, "text": text, "finish_reason": finish}]
    return _frame(request, "text_completion", [] if text is None else choices)


def _whole(request: Metered) -> Json:
    text = " word" * min(request.completion_tokens, PARTS)
    if request.path.endswith("/embeddings"):
        vector: Json = {"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}
        return {"object": "list", "model": request.model, "data": [vector], "usage": _usage(request)}
    if "/chat/" in request.path:
        message = {"role": "assistant", "content": text}
        choices: list[Json] = [{"index": 0, "message": message, "finish_reason": "length"}]
        return _frame(request, "chat.completion", choices) | {"usage": _usage(request)}
    choices = [{"index": 0, "text": text, "finish_reason": "length"}]
    return _frame(request, "text_completion", choices) | {"usage": _usage(request)}


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(value: Json) -> bytes:
    return _chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


def _send(writer: asyncio.StreamWriter, value: Json) -> None:
    body = json.dumps(value).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    writer.write(head + body)


def _fail_where_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if writer.is_closing() or reader.at_eof():
        raise ConnectionResetError


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="metered")
    parser.add_argument("--first", type=float, default=0.0)
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    options = parser.parse_args()
    engine = MeteredEngine(tuple(options.models.split(",")), options.first, options.pace, options.tokens)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
