"""A gateway that is asked for several times as much as its engine can do: `python -m tests.journeys.overload`.

The engine's times are known (tests/rigs/paced_engine.py), so it is known what could have been done. It prints what
became of the requests: how soon those that were refused were told so, how long the others waited for their first token,
who had which share of the engine's time, and how much of that was worth it (goodput): first tokens within twice the
time of an idle engine. `--without-limit` shows the same with the queue in the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from app.keys import digest
from bench.machine import rss_bytes
from tests.journeys.gateway import Gateway
from tests.rigs.open_load import Call, Caller, OpenLoad
from tests.rigs.program import Program

CONFIG = """
backends:
  paced: {{kind: remote, url: "{url}"{limits}}}
models:
  paced: {{backend: paced}}
keys:
{keys}
"""
# What each key asks for, in parts of what the engine can do at an overload of four: together four times as much.
DEMANDS: Final = {"big": 1.6, "middle": 0.9, "small": 0.6, "least": 0.45, "night": 0.45}
BATCHES: Final = ("night",)


@dataclass(frozen=True)
class Load:
    """`places`: how many requests the engine works on; `first_s`, `pace_s`: its times; `tokens`: from least to most."""

    places: int = 32
    first_s: float = 0.4
    pace_s: float = 0.06
    tokens: tuple[int, int] = (5, 15)
    overload: float = 4.0
    seconds: float = 30.0
    warm_s: float = 6.0  # before it is measured

    def service_s(self, tokens: float) -> float:
        """How long a request takes that has a place."""
        return self.first_s + (tokens - 1) * self.pace_s

    @property
    def capacity(self) -> float:
        """Requests that the engine can do in a second."""
        return self.places / self.service_s(sum(self.tokens) / 2)


@dataclass(frozen=True)
class Outcome:
    """What came of it. `idle_s`: the first token of an idle engine; `memory`: bytes of relay and supervisor before the
    load, after its beginning, and from then on to its end. `most`: requests that the engine had at the same time."""

    calls: Sequence[Call]
    idle_s: float
    memory: Sequence[int]
    most: int


def overload(folder: Path, load: Load, *, limited: bool = True, leaves_s: float = 30.0) -> Outcome:
    """Start an engine and a gateway, and ask it by the demands."""
    secrets = {name: f"mp-{name}-0123456789" for name in DEMANDS}
    keys = "".join(
        f'  - {{name: {name}, sha256: "{digest(secret)}"{", priority: batch" if name in BATCHES else ""}}}\n'
        for name, secret in secrets.items()
    )
    limits = f", max_in_flight: {load.places}, max_wait_s: {load.first_s}" if limited else ""
    argv = [sys.executable, "-m", "tests.rigs.paced_engine", "--places", str(load.places)]
    with Program([*argv, "--first", str(load.first_s), "--pace", str(load.pace_s)]) as engine:
        config = CONFIG.format(url=engine.line(r"(http://\S+)")[1], limits=limits, keys=keys)
        with Gateway(folder, config) as gateway:
            gateway.line("paced: ready in")
            callers = [
                Caller(name, secrets[name], part * load.overload / 4 * load.capacity) for name, part in DEMANDS.items()
            ]
            calls, idle_s, memory = asyncio.run(_loaded(gateway, callers, load, leaves_s))
            most = httpx.get(f"{engine.printed[0].strip()}/most").json()["most"]
            return Outcome(calls, idle_s, memory, most)


async def _loaded(
    gateway: Gateway, callers: Sequence[Caller], load: Load, leaves_s: float
) -> tuple[list[Call], float, list[int]]:
    alone = OpenLoad(gateway.url, "paced")
    idle = [Call("idle", 0.0, 2) for _ in range(12)]
    for call in idle:
        await alone.ask(callers[0], call)
    await alone.aclose()
    memory = [_memory(gateway)]
    asking = OpenLoad(gateway.url, "paced", load.tokens, leaves_s)
    run = asyncio.create_task(asking.run(callers, load.warm_s + load.seconds))
    await asyncio.sleep(load.warm_s)
    memory.append(_memory(gateway))
    began = time.perf_counter()
    while time.perf_counter() < began + load.seconds - 0.5:
        await asyncio.sleep(0.25)
        memory.append(_memory(gateway))
    calls = await run
    first = sorted(call.first_s for call in idle if call.first_s is not None)
    return [call for call in calls if call.began >= load.warm_s], first[len(first) // 2], memory


def _memory(gateway: Gateway) -> int:
    """Resident bytes of the supervisor and of the relays."""
    pids = [int(gateway.process.pid), *(relay for relay in gateway.status()["relays"]["pids"])]
    return sum(rss_bytes(pid) for pid in pids)


def report(load: Load, outcome: Outcome) -> list[str]:
    """The figures, a line for each."""
    calls, limit_s = outcome.calls, 2 * outcome.idle_s
    served = [call for call in calls if call.is_whole and call.first_s is not None]
    refused = [call for call in calls if call.status in (429, 503)]
    firsts = sorted(call.first_s or 0.0 for call in served)
    told = sorted(call.first_s or 0.0 for call in refused)
    good = [call for call in served if (call.first_s or 0.0) <= limit_s]
    possible_s = load.places * load.seconds
    work: dict[str, float] = defaultdict(float)
    for call in served:
        work[call.caller] += load.service_s(call.tokens)
    total_s = sum(work.values()) or 1.0
    asked, got = Counter(call.caller for call in calls), Counter(call.caller for call in served)
    lines = [
        f"asked {len(calls) / load.seconds:.1f}/s of {load.capacity:.1f}/s; served {len(served)}, "
        f"refused {len(refused)}, neither {len(calls) - len(served) - len(refused)}",
        f"first token of an idle engine {outcome.idle_s * 1000:.0f} ms; of those served {_spread(firsts)}",
        f"refusals after {_spread(told)}; within 50 ms {_part(told, 0.05):.1%}; "
        f"{sum(each >= 0.9 * load.first_s for each in told)} had waited in vain",
        f"goodput {sum(load.service_s(call.tokens) for call in good) / possible_s:.1%} of the engine's time, "
        f"throughput {total_s / possible_s:.1%}",
        f"the engine had {outcome.most} requests at most; memory of relay and supervisor "
        f"{' -> '.join(f'{each / 1e6:.1f}' for each in _ends(outcome.memory))} MB",
    ]
    for name in DEMANDS:
        fair = 0.1 if name in BATCHES else 0.9 / (len(DEMANDS) - len(BATCHES))
        share = work[name] / total_s
        lines.append(
            f"  {name:7} asked {asked[name] / load.seconds:5.1f}/s, served {got[name] / load.seconds:4.1f}/s, "
            f"share {share:.3f} ({share / fair - 1:+.0%} of {fair:.3f})"
        )
    return lines


def _ends(memory: Sequence[int]) -> tuple[int, int, int, int]:
    """Before the load, at its beginning, the most, at its end."""
    return memory[0], memory[1], max(memory), memory[-1]


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    at = [seconds[min(int(len(seconds) * part), len(seconds) - 1)] * 1000 for part in (0.5, 0.99, 1.0)]
    return f"p50 {at[0]:.0f}, p99 {at[1]:.0f}, most {at[2]:.0f} ms"


def _part(seconds: Sequence[float], limit_s: float) -> float:
    return sum(each <= limit_s for each in seconds) / max(len(seconds), 1)


def main() -> int:
    """Once, and print it."""
    parser = argparse.ArgumentParser(prog="tests.journeys.overload", description=__doc__)
    parser.add_argument("--places", type=int, default=32, help="requests that the engine works on at a time")
    parser.add_argument("--first", type=float, default=0.4, help="seconds until its first token")
    parser.add_argument("--overload", type=float, default=4.0, help="how many times as much is asked as it can do")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--leaves", type=float, default=30.0, help="seconds after which a client leaves")
    parser.add_argument("--without-limit", action="store_true", help="the queue is the engine's own")
    options = parser.parse_args()
    load = Load(options.places, options.first, overload=options.overload, seconds=options.seconds)
    with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
        outcome = overload(Path(folder), load, limited=not options.without_limit, leaves_s=options.leaves)
    for line in report(load, outcome):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
