"""An engine whose times are known: `python -m tests.rigs.paced_engine --places 32 --first 0.4 --pace 0.04`.

It streams `max_tokens` tokens, the first after `--first` seconds, then one each `--pace`. It works on as many requests
at a time as it has places; further ones wait in it in the order in which they came, as in an engine without a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json

MODELS = b'{"object":"list","data":[{"id":"paced","object":"model"}]}'
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"paced",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
)
LAST = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"paced",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class PacedEngine:
    """`most`: how many it has worked on at the same time, and how many it has had at most, those that wait included."""

    def __init__(self, places: int, first_s: float, pace_s: float) -> None:
        self.most = 0
        self._has = 0
        self._first_s = first_s
        self._pace_s = pace_s
        self._places = asyncio.Semaphore(places)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                at = head.find(b"content-length:")
                size = int(head[at + 15 : head.index(b"\r\n", at)]) if at >= 0 else 0
                body = await reader.readexactly(size)
                if head.startswith(b"post"):
                    await self._stream(reader, writer, json.loads(body).get("max_tokens", 1))
                else:
                    text = MODELS if b"/models" in head.split(b"\r\n", 1)[0] else b'{"most":%d}' % self.most
                    kind = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    writer.write(kind + b"content-length: %d\r\n\r\n%s" % (len(text), text))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tokens: int) -> None:
        self._has += 1
        self.most = max(self.most, self._has)
        try:
            async with self._places:
                loop = asyncio.get_running_loop()
                due = loop.time() + self._first_s
                if reader.at_eof():
                    raise ConnectionResetError  # it left while it waited
                writer.write(HEAD)
                for _ in range(tokens):
                    await asyncio.sleep(due - loop.time())
                    if writer.is_closing() or reader.at_eof():
                        raise ConnectionResetError
                    writer.write(_chunk(EVENT))
                    due += self._pace_s
                writer.write(_chunk(LAST) + b"0\r\n\r\n")
                await writer.drain()
        finally:
            self._has -= 1


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--places", type=int, default=32)
    parser.add_argument("--first", type=float, default=0.4)
    parser.add_argument("--pace", type=float, default=0.04)
    options = parser.parse_args()
    engine = PacedEngine(options.places, options.first, options.pace)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
