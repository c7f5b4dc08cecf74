"""python -m bench.calls: how much of our code runs for one event, and for one request on its way to an engine.

A relay serves on a real socket in this process, in front of an engine that sends an event when it is told to. What is
counted are calls of Python functions of `app` and `backends` (comprehensions aside, which newer Pythons do not call),
and the files that these are in:

- for one later event, from the engine's bytes to the client's: the client's dialect → the engine;
- for one request, from the body, which has been read and checked, to the bytes that are written to the engine.
  `returns`: how often the next call is one of a file that was left before.

The numbers do not depend on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table as Sheet

import app
from app.ipc import Publish, frame
from app.relay.planning.plan import plan
from app.relay.server import relay
from app.shared_counters import SharedCounters, create
from app.table import Backend, PublicModel, Table, Target
from backends.endpoint import Dialect, Endpoint, ModelFacts, State

ROOT: Final = Path(app.__file__).parent.parent
OURS: Final = tuple(f"{ROOT / package}/" for package in ("app", "backends"))
MODEL: Final = "bench"
WARM_UP: Final = 8  # events, until the reader knows them by their bytes
COUNTED: Final = 5
QUIET_S: Final = 0.2  # until timers that belong to a request's beginning have fired
PATIENCE_S: Final = 20.0

_CHAT: Final = {"messages": [{"role": "user", "content": "Count."}], "stream": True}


@dataclass(frozen=True, slots=True)
class Road:
    """A client's dialect and an engine's, in a table's words."""

    client: str
    engine: str
    path: str
    body: dict[str, Any]


ROADS: Final = (
    Road("OpenAI", "vllm", "/v1/chat/completions", _CHAT),
    Road("OpenAI", "ollama", "/v1/chat/completions", _CHAT),
    Road("Ollama", "vllm", "/api/chat", _CHAT),
    Road("Anthropic", "vllm", "/v1/messages", _CHAT | {"max_tokens": 100}),
    Road("Responses", "vllm", "/v1/responses", {"input": "Count.", "stream": True}),
    Road("Anthropic", "ollama", "/v1/messages", _CHAT | {"max_tokens": 100}),
    Road("Ollama", "ollama", "/api/chat", _CHAT),
    Road("Responses", "ollama", "/v1/responses", {"input": "Count.", "stream": True}),
)


@dataclass(slots=True)
class Calls:
    """Calls of our functions, in their order, by the file that each is in."""

    files: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def returns(self) -> int:
        """How often the next call is one of a file that was left before."""
        seen: set[str] = set()
        returns, last = 0, ""
        for name in self.files:
            returns += name != last and name in seen
            seen.add(name)
            last = name
        return returns

    def note(self, code: CodeType) -> None:
        """Count a call, if it is one of ours."""
        if code.co_filename.startswith(OURS) and code.co_name not in _COMPREHENSIONS:
            self.files.append(str(Path(code.co_filename).relative_to(ROOT)))
            self.names.append(f"{self.files[-1]}: {code.co_qualname}")


_COMPREHENSIONS: Final = frozenset({"<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"})


@contextlib.contextmanager
def counting(calls: Calls, *, since: CodeType | None = None) -> Iterator[None]:
    """Count what is called in this thread. `since`: from the first call of this function on, to the first write to an
    engine.
    """
    is_on = since is None

    def seen(at: FrameType, event: str, _: object) -> None:
        nonlocal is_on
        if event != "call":
            return
        is_on = is_on or at.f_code is since
        if not is_on:
            return
        if since is not None and _is_write_to_engine(at):
            sys.setprofile(None)
            return
        calls.note(at.f_code)

    sys.setprofile(seen)
    try:
        yield
    finally:
        sys.setprofile(None)


def _is_write_to_engine(at: FrameType) -> bool:
    caller = at.f_back
    if caller is None or at.f_code.co_name != "write":
        return False
    return caller.f_code.co_filename.endswith("backends/http/connection.py")


class FakeEngine:
    """Answers every request with a stream, of which each piece is sent when `send` is called."""

    def __init__(self, kind: str) -> None:
        self._is_ollama = kind == "ollama"
        self.asked = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        kind = "application/x-ndjson" if self._is_ollama else "text/event-stream"
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(request.partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(size)
                self._writer = writer
                writer.write(head.encode())
                self.asked.set()

    def send(self, word: str) -> None:
        """One event with this text."""
        if self._is_ollama:
            self._write(self._line(word) + b"\n")
        else:
            self._write(b"data: " + self._chunk({"content": word}) + b"\n\n")

    def end(self) -> None:
        """The end of the response."""
        if self._is_ollama:
            self._write(
                self._line("", done=True, done_reason="stop", eval_count=3, prompt_eval_count=3) + b"\n", b"0\r\n\r\n"
            )
            return
        usage = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
        end = b"data: " + self._chunk({}, "stop") + b"\n\ndata: " + self._chunk(None, usage=usage) + b"\n\n"
        self._write(end + b"data: [DONE]\n\n", b"0\r\n\r\n")

    def _chunk(self, delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}] if delta is not None else []
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_800_000_000, "model": MODEL}
        return msgspec.json.encode(head | {"choices": choices} | more)

    def _line(self, text: str, **more: Any) -> bytes:
        message = {"role": "assistant", "content": text}
        head = {"model": MODEL, "created_at": "2026-01-01T00:00:00.000000Z"}
        return msgspec.json.encode(head | {"message": message, "done": False} | more)

    def _write(self, data: bytes, tail: bytes = b"") -> None:
        assert self._writer is not None
        self._writer.write(b"%x\r\n%b\r\n%b" % (len(data), data, tail))


@contextlib.asynccontextmanager
async def serving(kind: str, engine: str) -> AsyncIterator[tuple[str, int]]:
    """A relay in front of that engine; its address."""
    dialect = Dialect.OLLAMA if kind == "ollama" else Dialect.OPENAI
    root = engine if kind == "ollama" else f"{engine}/v1"
    endpoint = Endpoint("engine", 1, root, is_ours=True, dialect=dialect)
    facts = {MODEL: ModelFacts(num_ctx=4096, is_loaded=True)} if kind == "ollama" else {}
    backend = Backend("engine", kind, State.READY, endpoint=endpoint, facts=facts)
    table = Table(
        version=1,
        models={MODEL: PublicModel(MODEL, (Target("engine", MODEL),))},
        aliases={},
        wildcards=(),
        backends={"engine": backend},
    )
    connections: list[asyncio.StreamWriter] = []

    async def publish(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(frame(Publish(table=table)))

    with (
        tempfile.TemporaryDirectory(prefix="modelport-calls-") as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        state = Path(folder)
        async with await asyncio.start_unix_server(publish, state / "relay.sock") as supervisor:
            running = asyncio.create_task(relay(listener, state, SharedCounters(create())))
            try:
                yield listener.getsockname()
            finally:
                supervisor.close()
                for writer in connections:
                    writer.close()
                await running


@dataclass(slots=True)
class Client:
    """One connection to the relay."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def ask(self, road: Road) -> None:
        """Send the road's request."""
        body = msgspec.json.encode({"model": MODEL, **road.body})
        head = f"POST {road.path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        self.writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def hears(self, word: str) -> None:
        """Until this has come."""
        async with asyncio.timeout(PATIENCE_S):
            await self.reader.readuntil(word.encode())


@contextlib.asynccontextmanager
async def talking(road: Road) -> AsyncIterator[tuple[FakeEngine, Client]]:
    """A client of the road's dialect, a relay and an engine."""
    engine = FakeEngine(road.engine)
    async with await asyncio.start_server(engine.answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with serving(road.engine, f"http://127.0.0.1:{port}") as address:
            client = Client(*await asyncio.open_connection(*address))
            try:
                yield engine, client
            finally:
                client.writer.close()
                server.close()


async def of_event(road: Road) -> Calls:
    """What one later event costs."""
    counts: list[Calls] = []
    async with talking(road) as (engine, client):
        client.ask(road)
        async with asyncio.timeout(PATIENCE_S):
            await engine.asked.wait()
        for number in range(WARM_UP):
            engine.send(word := f" warm{number}.")
            await client.hears(word)
        await asyncio.sleep(QUIET_S)
        for number in range(COUNTED):
            calls = Calls()
            with counting(calls):
                engine.send(word := f" word{number}.")
                await client.hears(word)
            counts.append(calls)
        engine.end()
        await client.hears("0\r\n\r\n")
    usual = Counter(len(calls.files) for calls in counts).most_common(1)[0][0]
    return next(calls for calls in counts if len(calls.files) == usual)


async def of_request(road: Road) -> Calls:
    """What one request costs: the second, for which there is a connection to the engine already."""
    calls = Calls()
    async with talking(road) as (engine, client):
        for is_counted in (False, True):
            engine.asked.clear()
            with counting(calls, since=plan.__code__) if is_counted else contextlib.nullcontext():
                client.ask(road)
                async with asyncio.timeout(PATIENCE_S):
                    await engine.asked.wait()
            engine.send(" word.")
            await client.hears("word")
            engine.end()
            await client.hears("0\r\n\r\n")
            await asyncio.sleep(QUIET_S)
    return calls


def main() -> int:
    """Count and print; with `-v` each call as well."""
    console = Console(width=120)
    is_wordy = "-v" in sys.argv[1:]
    events = Sheet("client → engine", "calls", "files", title="one later event")
    counted: list[tuple[str, Calls]] = []
    for road in ROADS:
        calls = asyncio.run(of_event(road))
        name = f"{road.client} → {road.engine}"
        counted.append((name, calls))
        events.add_row(name, str(len(calls.files)), str(len(set(calls.files))))
    requests = Sheet("client → engine", "calls", "files", "returns", title="one request, until it is written")
    calls = asyncio.run(of_request(ROADS[0]))
    counted.append(("request, OpenAI → vllm", calls))
    requests.add_row("OpenAI → vllm", str(len(calls.files)), str(len(set(calls.files))), str(calls.returns))
    for name, each in counted if is_wordy else ():
        console.print(f"[bold]{name}[/]", *each.names, sep="\n  ", highlight=False)
    console.print(events)
    console.print(requests)
    return 0


if __name__ == "__main__":
    sys.exit(main())
