"""python -m bench.profile [--streams] [--calls] [--limits]: where a relay's CPU time goes under the benchmark's load.

Samples: every millisecond of the relay's CPU time its stack is looked at, which costs it little. Told is, for each
function, the share of the time that it was at work itself (the system's work for it included), and with what it called.
`--calls`: each call is counted, which slows the relay down: how often each function is called for one request or event.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table as Sheet

from app import keys
from bench import machine
from bench.peer import Peer
from bench.watching import WARM_UP, watched

KEYS: Final = 8
STREAMS: Final = 5  # times all streams: they take so little time that one would leave too few samples


def run(options: argparse.Namespace, console: Console) -> int:
    """Load a relay, and print what it did; returns the exit code, 1 where a request failed."""
    measured_core, other_core = machine.cores()
    clients = [secrets.token_hex(32) for _ in range(KEYS)]
    with tempfile.TemporaryDirectory(prefix="modelport-bench-") as name:
        written = Path(name, "profile.json")
        peer = Peer.compiled(Path(name), other_core, clients)
        arguments = ["--profile", "calls" if options.calls else "samples", "--profile-into", str(written)]
        arguments += ["--limits"] if options.limits else []
        for client in clients:
            arguments += ["--key", keys.digest(client)]
        with peer.upstream() as upstream, watched(arguments, upstream, measured_core) as (port, pid):
            warm = peer.requests(port, options.connections, WARM_UP)
            before = machine.cpu_shares_ns(pid)
            if options.streams:
                loads = [peer.streams(port, options.connections) for _ in range(STREAMS)]
            else:
                loads = [peer.requests(port, options.connections, options.count)]
            after = machine.cpu_shares_ns(pid)
        profile = json.loads(written.read_text())
    count = sum(load.events if options.streams else load.answered for load in loads)
    user, system = ((after[i] - before[i]) / count / 1e3 for i in range(2))
    what = "event" if options.streams else "request"
    console.print(f"CPU-µs per {what}: {user + system:.1f} (user {user:.1f}, system {system:.1f})", highlight=False)
    told = count + (0 if options.streams else warm.answered)
    console.print(_sheet(profile, told if options.calls else 0, what, options.rows))
    return 1 if warm.failures + sum(load.failures for load in loads) else 0


def _sheet(profile: dict[str, list[float]], count: int, what: str, most: int) -> Sheet:
    """The functions that cost most. `count`: requests or events, where calls were counted; 0 where samples were taken.

    Of each function: calls (none where samples were taken), its own time, and its time with what it called.
    """
    if count:  # times of a clock on the wall: the loop waits in this one
        profile = {name: figures for name, figures in profile.items() if not name.endswith(" Runner.run")}
    whole = sum(own for _, own, _ in profile.values()) or 1
    sheet = Sheet("function", *([f"calls per {what}"] if count else []), "own %", "with its calls %")
    for name, (calls, own, both) in sorted(profile.items(), key=lambda each: -each[1][1])[:most]:
        often = [f"{calls / count:.2f}"] if count else []
        sheet.add_row(name, *often, f"{100 * own / whole:.1f}", f"{100 * both / whole:.1f}")
    return sheet


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="bench.profile", description="Where a relay's CPU time goes.")
    parser.add_argument("--streams", action="store_true", help="load it with streams instead of whole answers")
    parser.add_argument("--calls", action="store_true", help="count calls instead of taking samples")
    parser.add_argument("--limits", action="store_true", help="with keys that have every limit")
    parser.add_argument("--count", type=int, default=20_000, help="requests over all connections")
    parser.add_argument("--connections", type=int, default=32, help="also the number of streams")
    parser.add_argument("--rows", type=int, default=50, help="functions to show")
    return machine.exit_code(parser, run, 140)


if __name__ == "__main__":
    sys.exit(main())
