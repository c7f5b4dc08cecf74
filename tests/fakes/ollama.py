"""A small real server that behaves as an Ollama daemon 0.33.0-rc2 does; tests compare it with recordings of a real one.

It does: `/`, version, status, tags, show, ps, chat, generate, embed, embeddings, blobs, create, copy, delete, pull, and
of `/v1` the chat and text completions, embeddings and models; loading (shared, slow, with its queue), slots, context
lengths and silent cutting, Modelfile parameters, CORS and Host rules, and the ways in which its engine dies. It does
not: `/v1/responses`, `/v1/messages`, audio, push, templates (lengths of prompts are guessed unless recorded), `context`
arrays, quantising, accounts, HTTP/1.0 keep-alive. A crash concerns only the request that is scripted to crash.

In a test:      async with FakeOllama() as daemon: ... daemon.url ... daemon.script(Fault("line", after=3))
As a process:   python -m tests.fakes.ollama serve          (OLLAMA_HOST says where)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.fakes.ollama_engine import Engines
from tests.fakes.ollama_go import dumps, duration_s
from tests.fakes.ollama_models import Loaded, Model, Refused, Store, full
from tests.fakes.ollama_voice import Ask, Generated, Recorded, Voice
from tests.fakes.peer import Peer, Record
from tests.fakes.wire import LAST_CHUNK, chunk
from tests.rigs.transcripts import Json

VERSION = "0.33.0-rc2"
BUSY = "server busy, please try again.  maximum pending requests exceeded"
DIED = "an error was encountered while running the model: unexpected EOF"
PLAIN = "text/plain; charset=utf-8"
NATIVE = "application/json; charset=utf-8"
_PRIVATE = (".localhost", ".local", ".internal")


@dataclass(frozen=True)
class Fault:
    """How one response goes wrong: `line` (Ollama's own error line), `fin` (a clean end without one), `cut` (the
    connection ends in the middle), `reset`; behind `after` pieces. With `status` there is no stream at all but this
    status and `text`.
    """

    how: str = "line"
    after: int = 3
    text: str = DIED
    status: int = 0


@dataclass
class Asked:
    """One request for a model. `options` are the effective ones; `cancelled` is set once its client has left."""

    path: str
    body: Json
    record: Record
    options: Json = field(default_factory=dict)
    num_ctx: int = 0
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


class FakeOllama:
    """One daemon on 127.0.0.1. Its fields are set before the requests that they are for."""

    def __init__(self, port: int = 0, *, version: str = VERSION, voice: Voice | None = None) -> None:
        self.store = Store()
        self.version = version
        self.voice = voice or Recorded()
        self.load_s = 0.0
        self.piece_s = 0.0  # between the pieces of an answer
        self.num_parallel = 1
        self.max_queue = 512
        self.num_ctx = 4096  # what a model gets whose Modelfile and request say nothing
        self.cuts: tuple[int, ...] = ()  # a stream's bytes are written in pieces of these lengths, in turn
        self.origins: tuple[str, ...] = ()
        self.asked: list[Asked] = []
        self.requests: list[Record] = []
        self.loads: list[tuple[str, int]] = []  # each load: model, num_ctx
        self.running = 0
        self.most_running = 0
        self.hold: asyncio.Event | None = None  # while it is not set no answer goes on
        self.renders: Callable[[list[Json]], str | None] | None = None  # a model's template; None: an old daemon
        self._faults: deque[Fault | None] = deque()
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._loading = asyncio.Lock()
        self._pending = 0
        self._peers: dict[Peer, asyncio.Task[None]] = {}
        self._news = asyncio.Condition()
        self._engines = Engines()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._listener.setblocking(False)
        self._listener.listen(256)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        tasks = list(self._peers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._engines.__aexit__()
        self.store.close()

    def script(self, *faults: Fault | None) -> None:
        """How the next generations go wrong, one each; None: they do not."""
        self._faults = deque(faults)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until this is true of the requests."""
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(is_so)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    # -- connections

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                peer = Peer(sock, len(self._peers), lambda _: False)
                self._peers[peer] = task = peer.start(self._serve)
                task.add_done_callback(partial(self._forget, peer))

    def _forget(self, peer: Peer, _: asyncio.Task[None]) -> None:
        del self._peers[peer]

    async def _serve(self, peer: Peer) -> None:
        while peer.is_open and (record := await peer.request()):
            self.requests.append(record)
            await self._tell()
            try:
                await self._answer(peer, record)
            finally:
                record.ended.set()
            if record.header("connection") == "close":
                return

    async def _answer(self, peer: Peer, record: Record) -> None:
        from tests.fakes.ollama_routes import ROUTES, allowed

        path = record.path.partition("?")[0]
        reply = Reply(peer, record)
        if not self._is_welcome(record, reply):
            await reply.send(403, b"", "")
            return
        if record.method == "OPTIONS":
            await reply.send(204, b"", "")
            return
        handler = next((h for (m, p), h in ROUTES.items() if m == record.method and _fits(p, path)), None)
        if handler is None:
            methods = allowed(path)
            if methods:
                await reply.send(405, b"405 method not allowed", "text/plain", f"Allow: {methods}")
            else:
                await reply.send(404, b"404 page not found", "text/plain")
            return
        try:
            await handler(self, reply, path)
        except Refused as exc:
            await reply.refuse(exc)

    def _is_welcome(self, record: Record, reply: Reply) -> bool:
        origin, host = record.header("origin"), record.header("host") or ""
        name = (urlsplit(f"//{host}").hostname or "").lower()
        is_own = name == "localhost" or name.endswith(_PRIVATE) or _is_address(name)
        if origin is None:
            return is_own
        is_near = urlsplit(origin).hostname in ("localhost", "127.0.0.1", "0.0.0.0")
        if is_near or origin in self.origins:
            reply.extra = (f"Access-Control-Allow-Origin: {origin}", "Vary: Origin")
            return is_own
        return False

    # -- what a model request goes through

    @contextlib.asynccontextmanager
    async def turn(self, model: Model, num_ctx: int, keep_s: float, shift: bool = True) -> AsyncIterator[float]:
        """Load the model with that context and wait for a slot; returns how long loading took, in seconds."""
        took_s = await self._load(model, num_ctx, keep_s, shift)
        turns = self._turns.setdefault(full(model.name).lower(), asyncio.Semaphore(self.num_parallel))
        async with turns:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            await self._tell()
            try:
                yield took_s
            finally:
                self.running -= 1

    async def _load(self, model: Model, num_ctx: int, keep_s: float, shift: bool) -> float:
        key = full(model.name).lower()
        if not self._has(key, num_ctx, shift) and self._loading.locked() and self._pending >= self.max_queue:
            raise Refused(503, BUSY)
        began = time.perf_counter()
        self._pending += self._loading.locked()
        was_pending = self._loading.locked()
        try:
            async with self._loading:
                if not self._has(key, num_ctx, shift):
                    self.store.loaded.pop(key, None)
                    await asyncio.sleep(self.load_s)
                    self.loads.append((key, num_ctx))
        finally:
            self._pending -= was_pending
        self.store.loaded[self._runner(key) or key] = Loaded(num_ctx, time.time() + keep_s, shift)
        return time.perf_counter() - began + 0.0007

    def _has(self, key: str, num_ctx: int, shift: bool) -> bool:
        self.store.ps()
        loaded = self.store.loaded.get(self._runner(key) or key)
        return loaded is not None and (loaded.num_ctx, loaded.shift) == (num_ctx, shift)

    def restart(self, model: Model) -> None:
        """Embeddings need a runner with other flags: the one for chats ends, even where the new one then refuses."""
        self.store.loaded.pop(self._runner(full(model.name).lower()) or "", None)

    def _runner(self, key: str) -> str | None:
        """The name under which a model's weights are in memory: names with the same weights share one runner."""
        models = self.store.models
        same = [each for each in self.store.loaded if each in models and models[each].weights == models[key].weights]
        return key if key in same else next(iter(same), None)

    async def generate(self, ask: Ask) -> Generated:
        """What its model generates."""
        if ask.model.file is not None:
            return await self._engines.say(ask)
        return await self.voice(ask)

    def fault(self) -> Fault | None:
        """How the response that begins now goes wrong."""
        return self._faults.popleft() if self._faults else None


class Reply:
    """The connection to one client, for its response."""

    def __init__(self, peer: Peer, record: Record) -> None:
        self.peer = peer
        self.record = record
        self.extra: tuple[str, ...] = ()
        self.is_v1 = record.path.startswith("/v1")

    @property
    def body(self) -> bytes:
        return self.record.body

    async def send(self, status: int, body: bytes, kind: str, *headers: str) -> None:
        """Send a whole response."""
        content = body if self.record.method != "HEAD" else b""
        lines = [*headers, *self.extra, f"Content-Length: {len(body)}"]
        await self.peer.send(_head(status, kind, *lines) + content)

    async def send_json(self, value: Any, status: int = 200) -> None:
        """Send JSON as the API of this path does (Ollama's own, or `/v1`)."""
        if self.is_v1:
            await self.send(status, dumps(value) + b"\n", "application/json")
        else:
            await self.send(status, dumps(value), NATIVE)

    async def refuse(self, exc: Refused) -> None:
        """Send an error in the shape of this path's API."""
        if not self.is_v1:
            await self.send_json({"error": exc.message}, exc.status)
            return
        type_ = {400: "invalid_request_error", 404: "not_found_error"}.get(exc.status, "api_error")
        error = {"message": exc.message, "type": type_, "param": None, "code": None}
        await self.send_json({"error": error}, exc.status)

    async def start(self, kind: str) -> None:
        """Send the head of a stream."""
        await self.peer.send(_head(200, kind, *self.extra, "Transfer-Encoding: chunked"))

    async def stream(self, pieces: list[bytes], cuts: tuple[int, ...] = ()) -> None:
        """Send pieces as chunks; with `cuts`, their bytes are cut at other places."""
        if not cuts:
            for piece in pieces:
                await self.peer.send(chunk(piece))
            return
        data, turn = b"".join(pieces), 0
        while data:
            size = max(1, cuts[turn % len(cuts)])
            await self.peer.send(chunk(data[:size]))
            data, turn = data[size:], turn + 1

    async def end(self) -> None:
        """Send the last chunk."""
        await self.peer.send(LAST_CHUNK)


Handler = Callable[[FakeOllama, Reply, str], Awaitable[None]]


def _head(status: int, kind: str, *lines: str) -> bytes:
    given = [f"Content-Type: {kind}"] if kind else []
    return "\r\n".join([f"HTTP/1.1 {status} Whatever", *given, *lines, "", ""]).encode("latin-1")


def _fits(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def keep_s(asked: Json) -> float:
    """For how many seconds a model stays loaded; 400 for a value that is not a duration."""
    if "keep_alive" not in asked or asked["keep_alive"] is None:
        return 300.0
    try:
        return duration_s(asked["keep_alive"])
    except ValueError as exc:
        raise Refused(400, str(exc)) from exc


async def _run(port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with FakeOllama(port, version=os.environ.get("FAKE_OLLAMA_VERSION", VERSION)) as daemon:
        daemon.num_parallel = int(os.environ.get("OLLAMA_NUM_PARALLEL", "1"))
        daemon.load_s = float(os.environ.get("FAKE_OLLAMA_LOAD_S", "0"))
        env = {name: value for name, value in os.environ.items() if name.startswith("OLLAMA_")}
        print(f"listening {daemon.url} {json.dumps(env, sort_keys=True)}", flush=True)
        await stopped.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fakes.ollama", description="A daemon that behaves as recorded.")
    parser.add_argument("verb", choices=["serve"])
    parser.parse_args()
    port = int(os.environ.get("OLLAMA_HOST", "127.0.0.1:0").rpartition(":")[2])
    asyncio.run(_run(port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
