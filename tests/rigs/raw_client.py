"""An HTTP/1.1 client that shows what really came: each byte, how the response ended, and how the connection did."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Reply:
    """One response. `is_whole`: the length or the last chunk came; `is_cut`: the connection ended before that."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_whole: bool = False

    @property
    def is_cut(self) -> bool:
        return not self.is_whole

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a refusal; its shape is checked."""
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["code"] is None or isinstance(error["code"], str)
        return error

    @property
    def events(self) -> list[Any]:
        """The data of each event: decoded JSON, or `[DONE]`."""
        events: list[Any] = []
        for event in self.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n"):
            lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
            if lines:
                data = b"\n".join(lines)
                events.append("[DONE]" if data == b"[DONE]" else json.loads(data))
        return events

    @property
    def text(self) -> str:
        """All text of a chat response, streamed or not."""
        if self.headers.get("content-type", "").startswith("application/json"):
            return str(self.json["choices"][0]["message"]["content"])
        deltas = [c["delta"] for e in self.events if isinstance(e, dict) for c in e.get("choices") or ()]
        return "".join(d.get("content") or "" for d in deltas)


class Client:
    """One connection to a gateway."""

    def __init__(self, url: str) -> None:
        self.host, self.port = urlsplit(url).hostname or "", urlsplit(url).port or 0
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=2**26)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, *, is_head: bool = False) -> Reply:
        """Read the next response, to its end or to the end of the connection."""
        reply = Reply()
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return reply
        first, *lines = head.decode("latin-1").split("\r\n")
        reply.status = int(first.split(" ")[1])
        reply.headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines if line)}
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            if is_head or reply.status in (204, 304):
                reply.is_whole = True
            elif "content-length" in reply.headers:
                reply.body = await self.reader.readexactly(int(reply.headers["content-length"]))
                reply.is_whole = True
            elif reply.headers.get("transfer-encoding") == "chunked":
                while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
                    reply.body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readuntil(b"\r\n")
                reply.is_whole = True
            else:
                reply.body = await self.reader.read()
                reply.is_whole = True
        return reply

    async def is_closed(self) -> bool:
        """Wait for the other side to close; anything it still sends is dropped."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        return True


def request(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """One request as bytes."""
    lines = {"host": "gateway", **({"content-type": "application/json"} if body else {}), **(headers or {})}
    if body or method == "POST":
        lines.setdefault("content-length", str(len(body)))
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items()) + "\r\n"
    return head.encode("latin-1") + body


async def ask(
    url: str, method: str, path: str, body: object = b"", headers: dict[str, str] | None = None, within_s: float = 30
) -> Reply:
    """One request on a connection of its own; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with asyncio.timeout(within_s), Client(url) as client:
        client.send(request(method, path, data, headers))
        return await client.reply(is_head=method == "HEAD")


def chat(model: str = "fake", *, stream: bool = False, text: str = "hello", **fields: object) -> dict[str, object]:
    """A chat request."""
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}], **fields}
