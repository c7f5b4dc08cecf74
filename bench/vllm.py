"""python -m bench.vllm URL NAME: what the gateway costs in front of a real vLLM, measured in the same run.

`URL` is a gateway on this machine that lets this machine see its status, and `NAME` a model of it that has the name of
its backend. Streams go through the gateway and past it in turns; every answer has the same length.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx

from bench import machine
from bench.figures import Spread

LIMIT_S = 300.0  # of one stream


@dataclass(frozen=True, slots=True)
class Turn:
    """Some streams at once: their tokens, seconds until the last, seconds to each first token, CPU of the relays."""

    tokens: int
    seconds: float
    first_s: tuple[float, ...]
    cpu_ns: int = 0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def first_ms(self) -> float:
        """The middle one."""
        return median(self.first_s) * 1e3

    @property
    def cpu_us_per_token(self) -> float:
        return self.cpu_ns / self.tokens / 1e3


@dataclass(frozen=True, slots=True)
class Target:
    """Where a turn goes to."""

    url: str
    model: str
    key: str
    relays: tuple[int, ...] = ()

    def turn(self, streams: int, length: int) -> Turn:
        """That many streams at once, each of `length` tokens; every token is an event of its own."""
        gate = threading.Barrier(streams)
        before = sum(map(machine.cpu_ns, self.relays))
        began = time.perf_counter()
        with ThreadPoolExecutor(streams) as pool:
            seen = list(pool.map(lambda _: self._stream(gate, length), range(streams)))
        seconds = time.perf_counter() - began
        cpu_ns = sum(map(machine.cpu_ns, self.relays)) - before
        return Turn(sum(tokens for tokens, _ in seen), seconds, tuple(first for _, first in seen), cpu_ns)

    def _stream(self, gate: threading.Barrier, length: int) -> tuple[int, float]:
        """Events with a token, and the time to the first."""
        body = {"model": self.model, "prompt": "Tell a story.", "max_tokens": length, "temperature": 0}
        body |= {"ignore_eos": True, "stream": True}
        tokens, first, is_done = 0, 0.0, False
        with httpx.Client(timeout=LIMIT_S, trust_env=False, headers={"authorization": f"Bearer {self.key}"}) as client:
            gate.wait()
            began = time.perf_counter()
            with client.stream("POST", f"{self.url}/v1/completions", json=body) as answer:
                answer.raise_for_status()
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        first = first or time.perf_counter() - began
                        tokens += 1
                    is_done = is_done or line == "data: [DONE]"
        if not is_done:
            raise machine.Unfit("a stream did not end as it should")
        return tokens, first


def targets(url: str, name: str) -> tuple[Target, Target]:
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
    direct = Target(f"http://127.0.0.1:{port}", name, environment["VLLM_API_KEY"])
    return Target(url, name, "none", relays), direct


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def told(through: Sequence[Turn], direct: Sequence[Turn]) -> list[str]:
    """The figures, a line for each; ratios are made round by round."""
    pairs = list(zip(through, direct, strict=True))
    speed = Spread.of([one.tokens_per_s / other.tokens_per_s for one, other in pairs])
    first = Spread.of([one.first_ms / other.first_ms for one, other in pairs])
    return [
        f"relay, CPU-µs per token: {Spread.of([each.cpu_us_per_token for each in through]).told(1)}",
        f"tokens/s through the gateway: {Spread.of([each.tokens_per_s for each in through]).told()}",
        f"tokens/s direct: {Spread.of([each.tokens_per_s for each in direct]).told()}",
        f"tokens/s, through ÷ direct: {speed.told(3)}",
        f"first token through the gateway, ms: {Spread.of([each.first_ms for each in through]).told(1)}",
        f"first token direct, ms: {Spread.of([each.first_ms for each in direct]).told(1)}",
        f"first token, through ÷ direct: {first.told(2)}",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.vllm", description="The gateway in front of a real vLLM.")
    parser.add_argument("url", help="the gateway, as http://127.0.0.1:8000")
    parser.add_argument("model", help="the public name, which is the backend's too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--length", type=int, default=400, help="tokens of each stream")
    options = parser.parse_args()
    through, direct = targets(options.url.rstrip("/"), options.model)
    turns: dict[Target, list[Turn]] = {through: [], direct: []}
    for target in turns:
        target.turn(options.streams, options.length // 4)  # warm up
    for number in range(options.rounds):
        # Who begins changes with every round.
        for target in sorted(turns, key=lambda each: (each is direct) != bool(number % 2)):
            turns[target].append(target.turn(options.streams, options.length))
    print(f"{options.streams} streams of {options.length} tokens, {options.rounds} rounds: median (lowest–highest)")
    print("\n".join(told(turns[through], turns[direct])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
