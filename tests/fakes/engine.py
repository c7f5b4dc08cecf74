"""A small real HTTP/1.1 server that answers as vLLM and llama.cpp do, and fails in every way we know.

What it imitates was recorded from real engines (tests/fakes/wire.py): POST /v1/chat/completions, /v1/completions,
/v1/embeddings, reranking, scores, tokens and transcriptions (tests/fakes/tasks.py), GET /v1/models and /health, vLLM's
errors (404 for an unknown model, 401 as a string, `{"detail"}` elsewhere). What it does not do: generate (the text is
fixed), check a request beyond JSON and the model's name, TLS, HTTP/2, tools, logprobs, adapters, sleep, metrics.

In a test:      async with FakeEngine() as engine: ... engine.url ... engine.script("reset_mid_stream")
As a process:   python -m tests.fakes.engine --port 4711 [--key K] [--load-s 2] ...

What decides how a request is answered: a model named `fault:NAME[:NUMBER]`, else the next scripted scenario, else the
default. The names are those of SCENARIOS; NUMBER is seconds where a scenario is slow. Scripts are for POST requests;
`probes` names a scenario for GET.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self

from tests.fakes import tasks as fakes_tasks
from tests.fakes import wire
from tests.fakes.answers import ANSWERS
from tests.fakes.peer import Peer, Record
from tests.fakes.scenario import End, Scenario, Stage
from tests.fakes.shapes import SCENARIOS as SHAPES
from tests.fakes.streams import STREAMS
from tests.fakes.tools import TOOLS

__all__ = ["SCENARIOS", "End", "FakeEngine", "Record", "Scenario", "Stage"]

SCENARIOS: dict[str, Scenario] = ANSWERS | STREAMS | SHAPES
PREFIX = "fault:"
_POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_OPEN = ("/health", "/fake/requests")


class FakeEngine:
    """One engine. `requests` are all that it read, `unread` counts those that it refused before it read them."""

    def __init__(
        self, models: Sequence[str] = ("fake",), key: str | None = None, port: int = 0, host: str = "127.0.0.1"
    ) -> None:
        self.models = tuple(models)
        self.key = key
        self.default = "ok"
        self.probes: str | None = None
        self.requests: list[Record] = []
        self.unread = 0
        self.connections = 0
        self._scripted: deque[str] = deque()
        self._peers: dict[Peer, asyncio.Task[None]] = {}
        self._arrived = asyncio.Condition()
        # Bound, never listening: keeps the port ours while the listener is closed.
        self.host = host
        self._reserved = _bound(host, port)
        self._listener: socket.socket | None = None
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"http://{host}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def open_connections(self) -> int:
        return len(self._peers)

    def script(self, *names: str, default: str = "ok") -> None:
        """From now on the next POST requests follow these scenarios, one each, and all later ones `default`.

        `refuse` concerns the whole engine: it stops listening, for probes too, until another scenario is scripted.
        """
        for name in (*names, default):
            _scenario(name)
        self._scripted, self.default = deque(names), default
        if "refuse" in (*names, default):
            self.refuse()
        else:
            self.listen()

    def listen(self) -> None:
        """Accept connections (again)."""
        if self._listener is None:
            self._listener = _bound(self.host, self.port)
            self._listener.setblocking(False)
            self._listener.listen(1024)
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def refuse(self) -> None:
        """Close the listener and every connection that has no request: new ones are refused."""
        if self._listener:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for peer, task in self._peers.items():
            if peer.record is None:
                task.cancel()

    async def arrived(self, count: int = 1) -> Record:
        """Wait until so many POST requests were read; returns the last of them."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.posts) >= count)
        return self.posts[count - 1]

    @property
    def posts(self) -> list[Record]:
        """The requests, probes left out."""
        return [record for record in self.requests if record.method == "POST"]

    async def aclose(self) -> None:
        """End everything; may be called twice."""
        self.refuse()
        tasks = list(self._peers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._reserved.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while self._listener:
                sock, _ = self._listener.accept()
                self.connections += 1
                peer = Peer(sock, self.connections, self._refuses_unread)
                self._peers[peer] = task = peer.start(self._serve)
                task.add_done_callback(partial(self._forget, peer))

    def _forget(self, peer: Peer, _: asyncio.Task[None]) -> None:
        del self._peers[peer]

    def _refuses_unread(self, start: bytes) -> bool:
        if b"POST " not in start[:5]:
            return False
        scripted = next(iter(self._scripted), self.default)
        if f'"{PREFIX}fin_unread"'.encode() not in start and scripted != "fin_unread":
            return False
        self.unread += 1
        if self._scripted and scripted == "fin_unread":
            self._scripted.popleft()
        return True

    async def _serve(self, peer: Peer) -> None:
        while peer.is_open and (record := await peer.request()):
            self.requests.append(record)
            async with self._arrived:
                self._arrived.notify_all()
            try:
                await self._answer(peer, record)
            finally:
                record.ended.set()
            if record.header("connection") == "close":
                return

    async def _answer(self, peer: Peer, record: Record) -> None:
        path = record.path.partition("?")[0]
        if self.key and path not in _OPEN and record.header("authorization") != f"Bearer {self.key}":
            await peer.send_json({"error": "Unauthorized"}, 401)
        elif record.method == "POST" and path in _POSTS:
            await self._generate(peer, record, path)
        elif record.method == "GET" and self.probes and path not in _OPEN[1:]:
            record.scenario = self.probes
            await _scenario(self.probes).act(peer)
        elif record.method == "GET" and path == "/health":
            await peer.send(wire.whole(200, b"", "text/plain"))
        elif record.method == "GET" and path == "/v1/models":
            await peer.send_json(wire.models(self.models))
        elif record.method == "GET" and path == "/fake/requests":
            await peer.send_json([_told(each) for each in self.requests])
        elif record.method == "POST" and path in fakes_tasks.PATHS:
            await self._task(peer, record, path)
        elif path in (*_POSTS, "/v1/models", "/health"):
            await peer.send_json({"detail": "Method Not Allowed"}, 405)
        else:
            await peer.send_json({"detail": "Not Found"}, 404)

    async def _task(self, peer: Peer, record: Record, path: str) -> None:
        scripted = self._next()
        if scripted != "ok":
            peer.ask = wire.Ask("chat", self.models[0])
            await _scenario(scripted).act(peer)
            return
        status, kind, body = fakes_tasks.answer(path, record, self.models)
        await peer.send(wire.whole(status, body, kind))

    async def _generate(self, peer: Peer, record: Record, path: str) -> None:
        try:
            peer.ask = ask = wire.Ask.read(path, record.body, self.models[0])
        except ValueError:
            await peer.send(wire.whole(400, wire.error_body("vllm", 400)[0]))
            return
        if ask.model not in self.models and not ask.model.startswith(PREFIX):
            message = f"The model `{ask.model}` does not exist. Known: {', '.join(self.models)}"
            await peer.send_json(
                {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}}, 404
            )
            return
        name = ask.model.removeprefix(PREFIX) if ask.model.startswith(PREFIX) else self._next()
        if name.partition(":")[0] not in SCENARIOS | TOOLS:
            await peer.send_json({"detail": f"no scenario {name}"}, 404)
            return
        record.scenario = name
        peer.argument = float(name.partition(":")[2] or 0) or None
        if name == "refuse":
            self.refuse()
        await _scenario(name).act(peer)

    def _next(self) -> str:
        return self._scripted.popleft() if self._scripted else self.default


def _scenario(name: str) -> Scenario:
    """The scenario of that name, with or without a number; KeyError when there is none."""
    return (SCENARIOS | TOOLS)[name.partition(":")[0]]


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock


def _told(record: Record) -> wire.Json:
    """One request as a line that the process prints."""
    return {
        "method": record.method,
        "path": record.path,
        "headers": dict(record.headers),
        "body": record.body.decode("utf-8", "replace"),
        "connection": record.connection,
        "scenario": record.scenario,
        "sent": record.sent,
        "pending": record.pending,
        "ended": record.ended.is_set(),
        "closed_how": record.closed_how,
        "closed_after_s": record.closed_after_s,
    }


async def _serve(options: argparse.Namespace, stopped: asyncio.Event) -> None:
    """Until it is stopped, or is to exit by itself."""
    async with FakeEngine(
        options.model or ("fake",), options.key or os.environ.get("FAKE_ENGINE_KEY"), options.port
    ) as engine:
        engine.script(default=options.default)
        engine.probes = options.probes
        print(engine.url, flush=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), options.exit_after_s)


async def _run(options: argparse.Namespace) -> int:
    sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
    children = [await asyncio.create_subprocess_exec(*sleeper) for _ in range(options.children)]
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, (lambda: None) if options.ignore_term else stopped.set)
    with contextlib.suppress(TimeoutError):  # as vLLM: nothing listens while the model loads
        await asyncio.wait_for(stopped.wait(), options.load_s)
    if not stopped.is_set():
        await _serve(options, stopped)
    for child in children:
        child.kill()
        await child.wait()
    return 0 if stopped.is_set() else int(options.exit_code)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fakes.engine", description="An engine that fails on demand.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", help="ask for this key; FAKE_ENGINE_KEY in the environment does the same")
    parser.add_argument("--model", action="append", help="a model it lists; may be repeated (default: fake)")
    parser.add_argument("--default", default="ok", choices=sorted(SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--probes", choices=sorted(SCENARIOS), metavar="SCENARIO", help="for GET requests")
    parser.add_argument("--load-s", type=float, default=0.0, help="seconds before it listens")
    parser.add_argument("--exit-after-s", type=float, help="seconds of listening after which it exits by itself")
    parser.add_argument("--exit-code", type=int, default=1)
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--children", type=int, default=0, help="processes of its own that outlive a SIGKILL of it")
    return asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
