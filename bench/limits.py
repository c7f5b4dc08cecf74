"""python -m bench.limits [--rounds 15] [--write]: what it costs to count: keys with limits, usage records, both,
against neither in the same run. Prints, and writes the section of docs/performance.md where that is asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table as Sheet

from bench import machine, page, subjects
from bench.figures import Spread
from bench.peer import Peer
from bench.subjects import PLAIN_FILE, BenchSettings, Subject

KEYS: Final = 8
WARM_UP: Final = 1_000
SETTLED_S: Final = 0.5  # until the supervisor has written down what the relays have recorded
NEITHER: Final = "neither"
BOTH: Final = "limits and usage records"
# High enough that no request is refused: each is counted against all of them.
_LIMITS: Final = (
    "rpm: 60_000_000, tpm: 60_000_000_000, max_parallel: 10_000, budget: {money: 1_000_000_000, per: month}"
)
_PRICE: Final = "price: {input: 0.2, output: 0.6, cached: 0.1}"
_NO_RECORDS: Final = "usage: {records: false}"
WAYS: Final = {
    NEITHER: BenchSettings(more=_NO_RECORDS),
    "limits": BenchSettings(of_key=_LIMITS, of_model=_PRICE, more=_NO_RECORDS),
    "usage records": PLAIN_FILE,
    BOTH: BenchSettings(of_key=_LIMITS, of_model=_PRICE),
}
SECTION: Final = """\
## What limits and usage records cost

Written by `make bench-limits ARGS=--write`: the same gateway four times, with keys that have every limit (`rpm`, `tpm`,
`max_parallel`, a `budget` of money), with [usage records](usage.md), with both and with neither, one after the other in
each round, there and back in turns. {count:,} requests over {connections} kept connections; CPU time of the relay is
that of all its threads, as above, and its ratio is to neither in the same round. The supervisor's is what it needs more
than in that round of neither, until it has written all records down; it is not in the way of a request.
"""


@dataclass(frozen=True, slots=True)
class CountedRound:
    """One way in one round: CPU time in microseconds for each request, of the relay and of the supervisor beside it."""

    relay_us: float
    supervisor_us: float
    requests_per_s: float
    failures: int


Measured = Mapping[str, Sequence[CountedRound]]


def measure(peer: Peer, subject: Subject, connections: int, count: int) -> CountedRound:
    """One load, and the time until the supervisor has written it down."""
    before = [sum(map(machine.cpu_ns, pids)) for pids in (subject.pids, subject.beside)]
    load = peer.requests(subject.port, connections, count)
    time.sleep(SETTLED_S)
    after = [sum(map(machine.cpu_ns, pids)) for pids in (subject.pids, subject.beside)]
    relay, supervisor = ((end - start) / max(1, load.answered) / 1e3 for start, end in zip(before, after, strict=True))
    return CountedRound(relay, supervisor, load.answered / load.seconds, load.failures)


TITLES: Final = ("", "CPU-µs per request", "× neither", "CPU-µs more", "the supervisor's", "requests/s", "failures")


def rows(measured: Measured) -> list[tuple[str, ...]]:
    """For each way: the relay's CPU time, its ratio and difference to the first way's in the same round, what the
    supervisor needed more, requests in a second, failures.
    """
    reference = next(iter(measured.values()))
    table: list[tuple[str, ...]] = []
    for way, rounds in measured.items():
        pairs = list(zip(rounds, reference, strict=True))
        more = Spread.of([each.relay_us - none.relay_us for each, none in pairs])
        beside = Spread.of([each.supervisor_us - none.supervisor_us for each, none in pairs])
        compared = (
            Spread.of([each.relay_us / none.relay_us for each, none in pairs]).text(3),
            f"{more.middle:+.1f}",
            f"{beside.middle:+.1f}",
        )
        table.append(
            (
                way,
                Spread.of([each.relay_us for each in rounds]).text(1),
                *(("–", "–", "–") if rounds is reference else compared),
                Spread.of([each.requests_per_s for each in rounds]).text(),
                str(sum(each.failures for each in rounds)),
            )
        )
    return table


def section(measured: Measured, count: int, connections: int) -> str:
    """The section of the page."""
    lines = [SECTION.format(count=count, connections=connections)]
    lines += ["| " + " | ".join(TITLES) + " |", "|---" * len(TITLES) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(measured)]
    rounds = len(next(iter(measured.values())))
    return "\n".join([*lines, "", f"{rounds} rounds; {machine.in_words()}.", ""])


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure every way in every round; returns the exit code, 1 where a request failed."""
    measured_core, other_core = machine.cores()
    clients = [secrets.token_hex(32) for _ in range(KEYS)]
    ways = {name: way for name, way in WAYS.items() if not options.only or name in options.only}
    for checkout in options.against:
        ways[f"{checkout}"] = BenchSettings(checkout=checkout)
    with tempfile.TemporaryDirectory(prefix="modelport-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        peer = Peer.compiled(folder, other_core, clients)
        upstream = stack.enter_context(peer.upstream())
        running = []
        for way, settings in ways.items():
            started = subjects.gateway(folder, upstream, [measured_core], clients, name=way, settings=settings)
            running.append(stack.enter_context(started))
        for subject in running:
            peer.requests(subject.port, options.connections, WARM_UP)
        measured: dict[str, list[CountedRound]] = {way: [] for way in ways}
        for number in range(options.rounds):
            console.print(f"round {number + 1} of {options.rounds}", style="dim")
            for subject in running if number % 2 else reversed(running):
                measured[subject.name].append(measure(peer, subject, options.connections, options.count))
    sheet = Sheet(*TITLES, title=f"median (lowest–highest) of {options.rounds} rounds")
    for row in rows(measured):
        sheet.add_row(*row)
    console.print(sheet)
    console.print(f"{machine.in_words()}.")
    if options.write:
        page.put_section(section(measured, options.count, options.connections))
        console.print(f"written: {page.PAGE.relative_to(page.PAGE.parent.parent)}")
    return 1 if any(each.failures for rounds in measured.values() for each in rounds) else 0


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="bench.limits", description="What limits and usage records cost.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=4_000, help="requests over all connections")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument(
        "--only", action="append", choices=list(WAYS), help="this way, and further ones; the first is compared with"
    )
    parser.add_argument(
        "--against",
        action="append",
        type=Path,
        default=[],
        metavar="CHECKOUT",
        help="also the gateway of another checkout, with keys that have no limits and its defaults",
    )
    parser.add_argument("--write", action="store_true", help="write the section of docs/performance.md")
    return machine.exit_code(parser, run, 160)


if __name__ == "__main__":
    sys.exit(main())
