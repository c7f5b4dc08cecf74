"""python -m bench.watching [--rounds 3] [--write]: what it costs to watch a relay, each way of it in turn: counters,
log lines, traces. Prints, and writes the section of docs/performance.md where that is asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table as Sheet

from bench import machine, page
from bench.figures import Spread
from bench.machine import Unfit, pinned
from bench.peer import Peer

NOBODY: Final = "nothing at all"
WAYS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (NOBODY, ("--no-counters",)),
    ("counters (always on)", ()),
    ("counters, a log line for each request", ("--log", "{folder}/log")),
    ("counters, traces of all", ("--collector", "{sink}")),
    ("counters, traces of none (`always_off`)", ("--collector", "{sink}", "--sampler", "always_off")),
    ("counters, traces of all, the collector dead", ("--collector", "http://127.0.0.1:9/v1/traces")),
    ("counters, log lines, traces of all", ("--log", "{folder}/log", "--collector", "{sink}")),
)
WARM_UP: Final = 500
SECTION: Final = """\
## What watching costs

Written by `make bench-watching ARGS=--write`: a relay in front of the same upstream, watched in different ways one
after the other in each round. CPU time is that of all its threads, as above; in brackets what it is more than with
nothing at all in the same round. {count:,} requests over {connections} connections, then {connections} streams of 200
events. Counters cannot be switched off; for the first row the relay was given some that do nothing.
"""


@dataclass(frozen=True, slots=True)
class WatchedRound:
    """One way in one round, in microseconds of CPU time."""

    per_request_us: float
    per_event_us: float
    failures: int


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """A collector that takes everything and reads nothing of it; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads a line for each batch."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def watched(arguments: Sequence[str], upstream: int, core: int) -> Iterator[tuple[int, int]]:
    """A relay with these arguments; its port and its process id."""
    command = [sys.executable, "-m", "bench.watched_relay", "--upstream", str(upstream), *arguments]
    with pinned(core):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline()
        if not port:
            raise Unfit(f"{' '.join(command)} ended at once")
        yield int(port), process.pid
    finally:
        process.stdin.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(peer: Peer, port: int, pid: int, connections: int, count: int) -> WatchedRound:
    """One round of one way."""
    warm = peer.requests(port, connections, WARM_UP)
    before = machine.cpu_ns(pid)
    many = peer.requests(port, connections, count)
    between = machine.cpu_ns(pid)
    flow = peer.streams(port, connections)
    after = machine.cpu_ns(pid)
    return WatchedRound(
        (between - before) / many.answered / 1e3,
        (after - between) / max(1, flow.events) / 1e3,
        warm.failures + many.failures + flow.failures,
    )


def rows(measured: Mapping[str, Sequence[WatchedRound]]) -> list[tuple[str, ...]]:
    """For each way its CPU time, and what it is more than the first way's in the same round."""
    reference = measured[NOBODY]
    table = []
    for way, rounds in measured.items():
        cells = []
        for name in ("per_request_us", "per_event_us"):
            values = [getattr(each, name) for each in rounds]
            more = [value - getattr(nothing, name) for value, nothing in zip(values, reference, strict=True)]
            spread = Spread.of(more)
            added = f" [{spread.middle:+.1f} ({spread.low:+.1f} to {spread.high:+.1f})]" if way != NOBODY else ""
            cells.append(Spread.of(values).text(1) + added)
        table.append((way, *cells))
    return table


def section(measured: Mapping[str, Sequence[WatchedRound]], count: int, connections: int) -> str:
    """The section of the page."""
    lines = [SECTION.format(count=count, connections=connections)]
    lines += ["| watched by | CPU-µs per request | CPU-µs per event |", "|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(measured)]
    failures = sum(each.failures for rounds in measured.values() for each in rounds)
    rounds = len(measured[NOBODY])
    return "\n".join([*lines, "", f"{rounds} rounds, {failures} failures.", "", f"{machine.in_words()}.", ""])


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure every way in every round; returns the exit code, 1 where a request failed."""
    measured_core, other_core = machine.cores()
    measured: dict[str, list[WatchedRound]] = {way: [] for way, _ in WAYS}
    with (
        tempfile.TemporaryDirectory(prefix="modelport-bench-") as folder,
        contextlib.ExitStack() as stack,
        sink() as collector,
    ):
        peer = Peer.compiled(Path(folder), other_core)
        upstream = stack.enter_context(peer.upstream())
        running = {}
        for way, arguments in WAYS:
            words = [word.format(folder=folder, sink=collector) for word in arguments]
            running[way] = stack.enter_context(watched(words, upstream, measured_core))
        for number in range(options.rounds):
            for way, (port, pid) in running.items():
                console.print(f"round {number + 1} of {options.rounds}: {way}", style="dim", markup=False)
                measured[way].append(measure(peer, port, pid, options.connections, options.count))
    sheet = Sheet("watched by", "CPU-µs per request", "CPU-µs per event", title=f"of {options.rounds} rounds")
    for row in rows(measured):
        sheet.add_row(*(cell.replace("[", r"\[") for cell in row))
    console.print(sheet)
    if options.write:
        page.put_section(section(measured, options.count, options.connections))
        console.print(f"written: {page.PAGE.relative_to(page.PAGE.parent.parent)}")
    return 1 if any(each.failures for rounds in measured.values() for each in rounds) else 0


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="bench.watching", description="What it costs to watch a relay.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=5_000, help="requests over all connections")
    parser.add_argument("--connections", type=int, default=32, help="also the number of streams")
    parser.add_argument("--write", action="store_true", help="write the section of docs/performance.md")
    return machine.exit_code(parser, run, 140)


if __name__ == "__main__":
    sys.exit(main())
