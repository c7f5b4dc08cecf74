"""python -m bench.relays [--runs 6] [--write]: two relays against one in the same run: how evenly they share their
clients' connections, and what a request and an event cost then. Prints, and writes the section of docs/performance.md
where that is asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from rich.console import Console
from rich.table import Table as Sheet

from bench import machine, page, subjects
from bench.figures import Spread
from bench.peer import Peer
from bench.subjects import Subject

KEYS: Final = 8
WARM_UP: Final = 500
JOINED_S: Final = 0.15  # until all connections of a load are there
ONE: Final = "one relay, one core"
WAYS: Final = {ONE: (1, False), "two relays, one core": (2, False), "two relays, two cores": (2, True)}
# The connections of each load, and whether each of them is a stream.
LOADS: Final = ((32, False), (64, False), (32, True))
SECTION: Final = """\
## Two relays

Written by `make bench-relays ARGS=--write`: the same gateway with one relay and with two (`server.relays`), one after
the other in each run, under {count:,} requests over kept connections, and under streams of 200 events, one every 10 ms
each. CPU time is that of all relays. The second core is the load's, too, so requests per second there are what is left
of both. The split is what the fuller of the two relays had of all connections, while the load ran, over all runs.
"""


@dataclass(frozen=True, slots=True)
class RelayLoad:
    """One load on some relays: CPU time of all of them for each request or event, how many of these in a second, and
    each relay's connections while it ran.
    """

    cpu_us: float
    per_s: float
    connections: tuple[int, ...]
    failures: int

    @property
    def largest_share(self) -> float:
        """Of all connections, those of the relay that has most."""
        return max(self.connections) / max(1, sum(self.connections))


Measured: TypeAlias = Mapping[tuple[int, bool], Mapping[str, Sequence[RelayLoad]]]


def measure(peer: Peer, subject: Subject, connections: int, count: int, *, streams: bool) -> RelayLoad:
    """One load of so many connections."""
    held: list[int] = []

    def look() -> None:
        time.sleep(JOINED_S)
        held.extend(machine.connections(pid, subject.port) for pid in subject.pids)

    looking = threading.Thread(target=look)
    before = sum(map(machine.cpu_ns, subject.pids))
    looking.start()
    load = peer.streams(subject.port, connections) if streams else peer.requests(subject.port, connections, count)
    used = sum(map(machine.cpu_ns, subject.pids)) - before
    looking.join()
    done = load.events if streams else load.answered
    return RelayLoad(used / max(1, done) / 1e3, done / load.seconds, tuple(held), load.failures)


def rows(measured: Measured) -> list[tuple[str, ...]]:
    """For each load and each way of running relays: CPU time, what it is to one relay's of the same run, how many a
    second, and how the connections were split.
    """
    table: list[tuple[str, ...]] = []
    for (connections, streams), ways in measured.items():
        what = "event" if streams else "request"
        for way, runs in ways.items():
            ratio = Spread.of([run.cpu_us / one.cpu_us for run, one in zip(runs, ways[ONE], strict=True)])
            share = Spread.of([100 * run.largest_share for run in runs])
            table.append(
                (
                    f"{connections} {'streams' if streams else 'connections'}, {way}",
                    f"{Spread.of([run.cpu_us for run in runs]).text(1)} per {what}",
                    "–" if way == ONE else ratio.text(2),
                    Spread.of([run.per_s for run in runs]).text(),
                    "–" if way == ONE else f"{share.middle:.0f} % (at most {share.high:.0f} %)",
                    str(sum(run.failures for run in runs)),
                )
            )
    return table


TITLES: Final = ("", "CPU-µs", "× one relay", "per second", "the fuller one's share", "failures")


def section(measured: Measured, count: int) -> str:
    """The section of the page."""
    lines = [SECTION.format(count=count), "| " + " | ".join(TITLES) + " |", "|---" * len(TITLES) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(measured)]
    runs = len(next(iter(measured.values()))[ONE])
    return "\n".join([*lines, "", f"{runs} runs; {machine.in_words()}.", ""])


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, and print; returns the exit code, 1 where a request failed."""
    own_core, other_core = machine.cores()
    clients = [secrets.token_hex(32) for _ in range(KEYS)]
    measured: dict[tuple[int, bool], dict[str, list[RelayLoad]]] = {load: {way: [] for way in WAYS} for load in LOADS}
    with tempfile.TemporaryDirectory(prefix="modelport-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        peer = Peer.compiled(folder, other_core, clients)
        upstream = stack.enter_context(peer.upstream())
        running = {}
        for way, (relays, is_spread) in WAYS.items():
            cores = [own_core, other_core] if is_spread else [own_core]
            running[way] = stack.enter_context(
                subjects.gateway(folder, upstream, cores, clients, name=way, relays=relays)
            )
            peer.requests(running[way].port, 32, WARM_UP)
        for number in range(options.runs):
            console.print(f"run {number + 1} of {options.runs}", style="dim")
            for load in LOADS:
                for way, subject in running.items():
                    done = measure(peer, subject, load[0], options.count, streams=load[1])
                    measured[load][way].append(done)
    sheet = Sheet(*TITLES, title=f"median (lowest–highest) of {options.runs} runs")
    for row in rows(measured):
        sheet.add_row(*row)
    console.print(sheet)
    if options.write:
        page.put_section(section(measured, options.count))
        console.print(f"written: {page.PAGE.relative_to(page.PAGE.parent.parent)}")
    return 1 if any(each.failures for ways in measured.values() for runs in ways.values() for each in runs) else 0


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="bench.relays", description="Two relays against one.")
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--count", type=int, default=8_000, help="requests over all connections")
    parser.add_argument("--write", action="store_true", help="write the section of docs/performance.md")
    return machine.exit_code(parser, run, 160)


if __name__ == "__main__":
    sys.exit(main())
