"""One connection to the fake engine, byte by byte: what came, what was sent, and which side ended it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.fakes.wire import SSE_HEAD, Ask, chunk, dumps, whole


class Gone(Exception):
    """The peer closed the connection while we wanted to write."""


@dataclass(slots=True, eq=False)
class Record:
    """One request that was read, and what became of its connection.

    `sent` counts the response's bytes that the kernel took, `pending` those of the current write that it did not;
    `blocked` is set once it did not take a write whole: somebody reads slower than we write.
    `closed_how` is "fin" or "reset" and `closed_after_s` the seconds since the request was read, both None unless the
    peer closed the connection before the response was over.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int
    at: float
    scenario: str = ""
    sent: int = 0
    pending: int = 0
    closed_how: str | None = None
    closed_after_s: float | None = None
    blocked: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    closed_by_peer: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def header(self, name: str) -> str | None:
        """The last value of a header; None when it did not come."""
        return next((value for key, value in reversed(self.headers) if key == name.lower()), None)

    def close(self, how: str) -> None:
        self.closed_how, self.closed_after_s = how, time.monotonic() - self.at
        self.closed_by_peer.set()


class Peer:
    """One accepted connection. Reads all the time, so that it notices at once when the other side leaves."""

    def __init__(self, sock: socket.socket, number: int, is_unread: Callable[[bytes], bool]) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = number
        self.is_open = True
        self.record: Record | None = None
        self.ask = Ask("", "")
        self.argument: float | None = None
        self._sock = sock
        self._is_unread = is_unread
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop.add_reader(sock, self._readable)

    def start(self, work: Callable[[Peer], Awaitable[None]]) -> asyncio.Task[None]:
        """Run the connection's life as a task; it ends when either side closes."""

        async def life() -> None:
            try:
                with contextlib.suppress(Gone):
                    await work(self)
            finally:
                self.fin()

        self._task = self._loop.create_task(life())
        return self._task

    async def request(self) -> Record | None:
        """Read the next request; None when what came is not a request."""
        self.record = None
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            await self._more()
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        if len(words := lines[0].split(" ")) != 3:
            return None
        headers = tuple((key.lower(), value.strip()) for key, _, value in (line.partition(":") for line in lines[1:]))
        named = dict(headers)
        chunked = named.get("transfer-encoding") == "chunked"
        body = await self._chunks() if chunked else await self._take(int(named.get("content-length", 0)))
        self.record = Record(words[0], words[1], headers, body, self.number, time.monotonic())
        return self.record

    async def send(self, data: bytes) -> None:
        """Write all of it, waiting for a slow reader; Gone when the peer has left."""
        view = memoryview(data)
        while view and self.is_open:
            try:
                taken = self._sock.send(view)
            except BlockingIOError:
                if self.record:
                    self.record.blocked.set()
                await self._writable()
                continue
            except OSError as exc:
                self._left("reset")
                raise Gone from exc
            view = view[taken:]
            if self.record:
                self.record.sent += taken
                self.record.pending = len(view)
        await asyncio.sleep(0)

    async def send_chunk(self, data: bytes) -> None:
        await self.send(chunk(data))

    async def send_json(self, value: object, status: int = 200, *headers: str) -> None:
        await self.send(whole(status, dumps(value), "application/json", *headers))

    async def send_stream(self, *events: bytes) -> None:
        """Send the head of an event stream, and each of these as one chunk; the stream stays open."""
        await self.send(SSE_HEAD)
        for event in events:
            await self.send_chunk(event)

    async def forever(self) -> None:
        """Do nothing until the other side leaves."""
        await asyncio.Event().wait()

    def fin(self) -> None:
        """End the connection properly: everything written is delivered first."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

    def reset(self) -> None:
        """End it with RST: what the other side has not read yet is lost."""
        if self.is_open:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.fin()

    def _readable(self) -> None:
        try:
            if self.record is None and self._is_unread(self._sock.recv(65536, socket.MSG_PEEK)):
                self.fin()  # with the request unread in the kernel this makes RST
                self._end()
                return
            data = self._sock.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            self._left("reset")
            self._end()
            return
        if not data:
            self._left("fin")
            self._end()
            return
        self._buffer += data
        self._news.set()

    def _left(self, how: str) -> None:
        if self.record and not self.record.ended.is_set():
            self.record.close(how)
        self.fin()

    def _end(self) -> None:
        if self._task:
            self._task.cancel()

    async def _more(self) -> None:
        if not self.is_open:
            raise Gone
        self._news.clear()
        await self._news.wait()

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                await self._more()
            size = int(await self._take(end), 16)
            data = (await self._take(size + 4))[2:-2]
            if size == 0:
                return body
            body += data

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._sock, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            if self.is_open:
                self._loop.remove_writer(self._sock)
