"""One of three replicas answers 500, hangs or is slow, and is well again: `python -m tests.journeys.ejecting`.

It prints after how many requests and seconds the replica was ejected, which share of the requests failed or was slow
from its first failure until then, which afterwards, and when it was back once it was well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.journeys.gateway import Gateway
from tests.rigs.raw_client import ask, chat

NAMES: Final = ("a", "b", "c")
ILL: Final = "b"
FIRST_S: Final = 0.05  # until a healthy one's first token
SLOW_S: Final = 2.0  # until that of one that is slow
FAULTS: Final = ("fails", "hangs", "is slow")
CLIENT_S: Final = 30.0  # a client waits no longer
TOO_LATE_S: Final = 1.0  # a first token after this is a slow answer
CONFIG: Final = """
server: {{relays: {relays}}}
backends:
{backends}
models:
  m: {{targets: [{targets}], route: least_busy}}
"""
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@dataclass
class Replica:
    """An engine on a real socket. `mode`: `well`, or one of FAULTS. `asked`: when clients' requests came."""

    mode: str = "well"
    asked: list[float] = field(default_factory=list)
    trials: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, then the end."""
        # The event loop cancels what is still served at its end, and would log it.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if head.startswith(b"get"):
            self._send(writer, {"object": "list", "data": [{"id": "m", "object": "model"}]})
            return
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        if body.get("max_tokens") == 1:
            self.trials += 1
        else:
            self.asked.append(time.perf_counter())
        if self.mode == "fails":
            writer.write(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return
        if self.mode == "hangs":
            await reader.read()  # until the other side has gone
            return
        await asyncio.sleep(SLOW_S if self.mode == "is slow" else FIRST_S)
        known = {"id": "1", "created": 1, "model": "m"}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "length"}
            self._send(writer, {**known, "object": "chat.completion", "choices": [choice]})
            return
        writer.write(_HEAD)
        for at in range(4):
            delta = {"index": 0, "delta": {"role": "assistant", "content": "x"}, "finish_reason": None}
            if at == 3:
                delta = {"index": 0, "delta": {}, "finish_reason": "stop"}
            chunk = {**known, "object": "chat.completion.chunk", "choices": [delta]}
            writer.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await asyncio.sleep(0.01)
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    @staticmethod
    def _send(writer: asyncio.StreamWriter, body: Any) -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
        writer.write(head.encode() + b"connection: close\r\n\r\n" + data)


@contextlib.asynccontextmanager
async def replicas() -> AsyncIterator[dict[str, Replica]]:
    """Three of them, listening."""
    async with contextlib.AsyncExitStack() as stack:
        made = {name: Replica() for name in NAMES}
        for replica in made.values():
            server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
            stack.callback(server.close)
            replica.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield made


@dataclass(frozen=True)
class Call:
    """One request of a client: when it began, how long it took, and whether it was answered."""

    began: float
    took_s: float
    is_answered: bool


@dataclass(frozen=True)
class Outcome:
    """`calls`: all. The times at which it fell ill, was ejected, was well and was back; `asked`: requests that it got
    from when it fell ill until it was ejected, from then until it was back, and afterwards."""

    calls: Sequence[Call]
    times: tuple[float, float, float, float]
    asked: tuple[int, int, int]


async def run(
    folder: Path, fault: str, *, relays: int = 1, clients: int = 6, ill_s: float = 20.0, well_s: float = 6.0
) -> Outcome:
    """Clients that ask one request after the other, with a pause, while that happens to one replica. `ill_s`: for how
    long it stays ill once it is ejected; `well_s`: before it falls ill, and once it is back."""
    async with replicas() as engines:
        rows = "\n".join(f'  {name}: {{kind: remote, url: "{each.url}"}}' for name, each in engines.items())
        targets = ", ".join(f"{{backend: {name}, model: m}}" for name in NAMES)
        config = CONFIG.format(relays=relays, backends=rows, targets=targets)
        with contextlib.ExitStack() as stack:
            gateway = await asyncio.to_thread(stack.enter_context, Gateway(folder, config))
            for name in NAMES:
                await asyncio.to_thread(gateway.line, f"{name}: ready in")
            calls: list[Call] = []
            asking = [asyncio.create_task(_ask_on(gateway.url, calls)) for _ in range(clients)]
            await asyncio.sleep(well_s)
            ill, ill_at = engines[ILL], time.perf_counter()
            ill.mode = fault
            out_at = await _until(gateway, is_out=True, limit_s=60.0)
            await asyncio.sleep(ill_s)
            ill.mode, well_at = "well", time.perf_counter()
            back_at = await _until(gateway, is_out=False, limit_s=60.0)
            await asyncio.sleep(well_s)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            at = ill.asked
            asked = (
                sum(ill_at <= each < out_at for each in at),
                sum(out_at <= each < back_at for each in at),
                sum(each >= back_at for each in at),
            )
            return Outcome(calls, (ill_at, out_at, well_at, back_at), asked)


async def _ask_on(url: str, calls: list[Call]) -> None:
    while True:
        began = time.perf_counter()
        is_answered = False
        with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
            async with asyncio.timeout(CLIENT_S):
                reply = await ask(url, "POST", "/v1/chat/completions", {**chat(stream=True), "model": "m"})
                is_answered = reply.status == 200 and reply.is_whole
        calls.append(Call(began, time.perf_counter() - began, is_answered))
        await asyncio.sleep(0.05)


async def _until(gateway: Gateway, *, is_out: bool, limit_s: float) -> float:
    """The time at which the gateway says so of the replica."""
    deadline = time.perf_counter() + limit_s
    while bool((await asyncio.to_thread(gateway.backend, ILL))["ejected"]) is not is_out:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"it is not {'ejected' if is_out else 'back'} after {limit_s:g} s")
        await asyncio.sleep(0.02)
    return time.perf_counter()


def report(fault: str, outcome: Outcome) -> str:
    """The figures in one line."""
    ill_at, out_at, well_at, back_at = outcome.times
    before = [call for call in outcome.calls if ill_at <= call.began < out_at]
    # What was on its way when it was ejected ends as it can.
    after = [call for call in outcome.calls if out_at <= call.began < well_at]
    again = [call for call in outcome.calls if call.began >= back_at]
    return (
        f"{fault}: ejected after {outcome.asked[0]} of its requests, {out_at - ill_at:.1f} s; "
        f"failed {_failed(before)} and slow {_slow(before)} of {len(before)} before, "
        f"failed {_failed(after)} and slow {_slow(after)} of {len(after)} while it was out "
        f"({outcome.asked[1]} went there); back {back_at - well_at:.1f} s after it was well, "
        f"{outcome.asked[2]} requests there since, failed {_failed(again)} of {len(again)}"
    )


def _failed(calls: Sequence[Call]) -> str:
    return f"{sum(not call.is_answered for call in calls) / max(len(calls), 1):.1%}"


def _slow(calls: Sequence[Call]) -> str:
    return f"{sum(call.is_answered and call.took_s > TOO_LATE_S for call in calls) / max(len(calls), 1):.1%}"


def main() -> int:
    """Each fault once, and print what came of it."""
    parser = argparse.ArgumentParser(prog="tests.journeys.ejecting", description=__doc__)
    parser.add_argument("--relays", type=int, default=1)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--ill", type=float, default=20.0, help="seconds for which it stays ill once it is ejected")
    parser.add_argument("--fault", choices=FAULTS, help="only this one")
    options = parser.parse_args()
    for fault in [options.fault] if options.fault else FAULTS:
        with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
            outcome = asyncio.run(
                run(Path(folder), fault, relays=options.relays, clients=options.clients, ill_s=options.ill)
            )
        print(report(fault, outcome), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
