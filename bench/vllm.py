"""python -m bench.vllm URL NAME: what the gateway costs in front of a real vLLM, measured in the same run.

`URL` is a gateway on this machine that lets this machine see its status, and `NAME` a model of it that has the name of
its backend. Streams go through the gateway and past it in turns; every answer has the same length.
"""

from __future__ import annotations

import argparse
import json
import re
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import httpx

from bench import machine
from bench.figures import Spread

LIMIT_S = 120.0  # of silence
TAIL = 4096  # of a stream: its last events
ALONE = 20  # requests one after the other, for the first token
FEW = 4


@dataclass(frozen=True, slots=True)
class BenchTurn:
    """Some streams at once: their tokens, the seconds until the last one ended, the seconds to each first token, and
    the CPU time of the relays in nanoseconds.
    """

    tokens: int
    seconds: float
    first_s: tuple[float, ...]
    cpu_ns: int = 0

    @property
    def tokens_per_s(self) -> float:
        """Of all streams together."""
        return self.tokens / self.seconds

    @property
    def first_ms(self) -> float:
        """The median time to a first token, in milliseconds."""
        return median(self.first_s) * 1e3

    @property
    def cpu_us_per_token(self) -> float:
        """CPU time of the relays."""
        return self.cpu_ns / self.tokens / 1e3


@dataclass(frozen=True, slots=True)
class BenchTarget:
    """Where the streams of a turn are sent: the gateway, with its relays, or the engine itself."""

    port: int
    model: str
    key: str
    relays: tuple[int, ...] = ()

    def turn(self, streams: int, length: int) -> BenchTurn:
        """Run so many streams at once, each of `length` tokens. Unfit when none of them moves."""
        before = sum(map(machine.cpu_ns, self.relays))
        began = time.perf_counter()
        readers = [Reader(self._connection(length)) for _ in range(streams)]
        with selectors.DefaultSelector() as waiting:
            for reader in readers:
                waiting.register(reader.connection, selectors.EVENT_READ, reader)
            while waiting.get_map():
                ready = waiting.select(LIMIT_S)
                if not ready:
                    raise machine.Unfit(f"no stream moved for {LIMIT_S:g} s")
                for key, _ in ready:
                    if not key.data.read():
                        waiting.unregister(key.fileobj)
        seconds = time.perf_counter() - began
        cpu_ns = sum(map(machine.cpu_ns, self.relays)) - before
        return BenchTurn(
            sum(each.tokens() for each in readers), seconds, tuple(each.first_s for each in readers), cpu_ns
        )

    def _connection(self, length: int) -> socket.socket:
        """A connection that has sent its request."""
        body = {"model": self.model, "prompt": "Tell a story.", "max_tokens": length, "temperature": 0}
        body |= {"ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
        content = json.dumps(body).encode()
        head = [
            "POST /v1/completions HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            f"Authorization: Bearer {self.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            "Connection: close",
        ]
        connection = socket.create_connection(("127.0.0.1", self.port), LIMIT_S)
        connection.sendall("\r\n".join([*head, "", ""]).encode() + content)
        return connection


class Reader:
    """A client that reads one stream with little CPU time: the processor is for the engine and the gateway."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.first_s = 0.0
        self._began = time.perf_counter()
        self._tail = b""

    def read(self) -> bool:
        """Read what is there; returns whether there may be more."""
        piece = self.connection.recv(1 << 16)
        if not piece:
            self.connection.close()
            return False
        self._tail = (self._tail + piece)[-TAIL:]
        if not self.first_s and b"data: {" in self._tail:
            self.first_s = time.perf_counter() - self._began
        return True

    def tokens(self) -> int:
        """How many tokens the engine reported in the end; Unfit when the stream was cut."""
        usage = re.search(rb'"completion_tokens": ?(\d+)', self._tail)
        if usage is None or b"data: [DONE]" not in self._tail:
            raise machine.Unfit(f"a stream did not end as it should: {self._tail[-300:]!r}")
        return int(usage[1])


def targets(url: str, name: str) -> tuple[BenchTarget, BenchTarget]:
    """The model through the gateway, and its engine itself; Unfit when it does not serve."""
    backends = httpx.get(f"{url}/admin/status", trust_env=False).raise_for_status().json()["health"]["backends"]
    engine = next((each["pid"] for each in backends if each["name"] == name and each["state"] == "ready"), None)
    if engine is None:
        raise machine.Unfit(f"{name} does not serve")
    port = next(word.partition("=")[2] for word in machine.argv(engine) if word.startswith("--port="))
    environment = dict(
        pair.partition("=")[::2] for pair in Path(f"/proc/{engine}/environ").read_text().split("\0") if pair
    )
    supervisor = _parent(_parent(engine))  # its guard is between
    relays = tuple(pid for pid in machine.children(supervisor) if "app.relay" in machine.argv(pid))
    direct = BenchTarget(int(port), name, environment["VLLM_API_KEY"])
    return BenchTarget(httpx.URL(url).port or 80, name, "none", relays), direct


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def lines(through: Sequence[BenchTurn], direct: Sequence[BenchTurn]) -> list[str]:
    """The figures, a line for each; ratios are made round by round."""
    pairs = list(zip(through, direct, strict=True))
    speed = Spread.of([one.tokens_per_s / other.tokens_per_s for one, other in pairs])
    first = Spread.of([one.first_ms / other.first_ms for one, other in pairs])
    return [
        f"relay, CPU-µs per token: {Spread.of([each.cpu_us_per_token for each in through]).text(1)}",
        f"tokens/s through the gateway: {Spread.of([each.tokens_per_s for each in through]).text()}",
        f"tokens/s direct: {Spread.of([each.tokens_per_s for each in direct]).text()}",
        f"tokens/s, through ÷ direct: {speed.text(3)}",
        f"first token of one stream through the gateway, ms: {Spread.of([each.first_ms for each in through]).text(1)}",
        f"first token of one stream direct, ms: {Spread.of([each.first_ms for each in direct]).text(1)}",
        f"first token of one stream, through ÷ direct: {first.text(2)}",
    ]


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="bench.vllm", description="The gateway in front of a real vLLM.")
    parser.add_argument("url", help="the gateway, as http://127.0.0.1:8000")
    parser.add_argument("model", help="the public name, which is the backend's too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--length", type=int, default=1500, help="tokens of each stream")
    options = parser.parse_args()
    try:
        return run(options)
    except (machine.Unfit, httpx.HTTPError) as exc:
        print(f"bench.vllm: {exc}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    through, direct = targets(options.url.rstrip("/"), options.model)
    turns: dict[BenchTarget, list[BenchTurn]] = {through: [], direct: []}
    for target in turns:
        target.turn(options.streams, options.length // 8)  # warm up
    for number in range(options.rounds):
        # Which of the two goes first changes with every round.
        for target in sorted(turns, key=lambda each: (each is direct) != bool(number % 2)):
            alone = tuple(target.turn(1, FEW).first_s[0] for _ in range(ALONE))
            turns[target].append(replace(target.turn(options.streams, options.length), first_s=alone))
    print(f"{options.streams} streams of {options.length} tokens, {options.rounds} rounds: median (lowest–highest)")
    print(f"on {machine.in_words()}")
    print("\n".join(lines(turns[through], turns[direct])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
