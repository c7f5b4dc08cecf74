"""`python -m bench [--rounds 3] [--write]`: measure, print, and write docs/performance.md where that is asked for."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import machine, page, subjects
from bench.figures import Round, rows
from bench.machine import Unfit
from bench.peer import Load, Peer
from bench.subjects import Subject

ANSWER_BYTES = 666
WARM_UP = 500
KEYS = 8
ROUTER = Path("build/bench")


def measure(peer: Peer, subject: Subject, options: argparse.Namespace) -> Round:
    """One round of one subject: warm up, one connection, many connections, streams."""
    warm = peer.requests(subject.port, options.connections, WARM_UP)
    single = peer.requests(subject.port, 1, options.single)
    many, many_ns, beside_ns = _cpu_ns(subject, lambda: peer.requests(subject.port, options.connections, options.count))
    flow, flow_ns, _ = _cpu_ns(subject, lambda: peer.streams(subject.port, options.connections))
    return Round(
        cpu_per_request_us=many_ns / many.answered / 1e3,
        cpu_per_event_us=flow_ns / max(1, flow.events) / 1e3,
        beside_per_request_us=beside_ns / many.answered / 1e3,
        requests_per_s=many.answered / many.seconds,
        p50_ms=single.p50_us / 1e3,
        p99_ms=single.p99_us / 1e3,
        rss_bytes=sum(map(machine.rss_bytes, subject.pids)),
        beside_rss_bytes=sum(map(machine.rss_bytes, subject.beside)),
        failures=warm.failures + single.failures + many.failures + flow.failures,
    )


def _cpu_ns(subject: Subject, load: Callable[[], Load]) -> tuple[Load, int, int]:
    """A load, and the CPU time that it took in nanoseconds: of the processes that carry the data, and of the others."""
    before = [sum(map(machine.cpu_ns, pids)) for pids in (subject.pids, subject.beside)]
    done = load()
    after = [sum(map(machine.cpu_ns, pids)) for pids in (subject.pids, subject.beside)]
    return done, after[0] - before[0], after[1] - before[1]


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure every subject in every round, and print the figures; returns the exit code, 1 where a request failed."""
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        peer, running = _started(options, stack, notes)
        measured: dict[str, list[Round]] = {subject.name: [] for subject in running}
        for number in range(options.rounds):
            for subject in running:
                console.print(f"round {number + 1} of {options.rounds}: {subject.name}", style="dim")
                measured[subject.name].append(measure(peer, subject, options))
    table = Table("", *measured, title=f"median (lowest–highest) of {options.rounds}")
    for row in rows(measured):
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note)
    if options.write:
        settings = {"count": options.count, "single": options.single, "connections": options.connections}
        fresh = page.markdown(measured, settings | {"answer": ANSWER_BYTES, "keys": KEYS}, notes)
        page.PAGE.write_text(page.kept(page.PAGE.read_text(encoding="utf-8"), fresh), encoding="utf-8")
        console.print(f"written: {page.PAGE.relative_to(page.PAGE.parent.parent)}")
    return 1 if any(each.failures for rounds in measured.values() for each in rounds) else 0


def _started(options: argparse.Namespace, stack: contextlib.ExitStack, notes: list[str]) -> tuple[Peer, list[Subject]]:
    """The load generator, and all subjects; in `notes`, which of them cannot be measured here."""
    measured_core, other_core = machine.cores()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelport-bench-")))
    keys = [secrets.token_hex(32) for _ in range(KEYS)]
    peer = Peer.compiled(folder, other_core, keys)
    upstream = stack.enter_context(peer.upstream())
    environment = Path(os.environ.get("MODELPORT_BENCH_ENV") or ROUTER)
    ways: dict[str, Callable[[], AbstractContextManager[Subject]]] = {
        "nginx": lambda: subjects.nginx(folder, upstream, measured_core),
        **{
            name: partial(subjects.vllm_router, folder, upstream, measured_core, environment, name)
            for name in subjects.POLICIES
        },
        subjects.PLAIN: lambda: subjects.gateway(folder, upstream, [measured_core], keys),
        **{
            name: partial(subjects.gateway, folder, upstream, [measured_core], keys, python, name)
            for python in options.beside
            for name in [f"{subjects.PLAIN}, Python {machine.version_of(python)}"]
        },
    }
    running = [stack.enter_context(subjects.direct(upstream))]
    for name, way in ways.items():
        if options.only and not any(name.startswith(word) for word in options.only.split(",")):
            continue
        try:
            running.append(stack.enter_context(way()))
        except Unfit as exc:
            if name.startswith(subjects.PLAIN):
                raise
            notes.append(f"{exc}.")
    return peer, running


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="bench",
        description="The gateway against nginx, vllm-router and no proxy. A minute will do: --rounds 1 --count 5000. "
        "MODELPORT_BENCH_ENV: the environment with vllm-router, if it is not build/bench.",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=20_000, help="requests over all connections")
    parser.add_argument("--single", type=int, default=3_000, help="requests on one connection")
    parser.add_argument("--connections", type=int, default=32, help="also the number of streams")
    parser.add_argument("--only", metavar="NAME[,NAME…]", help="of nginx, vllm-router, modelport; beside no proxy")
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="PYTHON",
        help="also the gateway on this interpreter, which has its packages (requirements.lock)",
    )
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    return machine.exit_code(parser, run, 180)


if __name__ == "__main__":
    sys.exit(main())
