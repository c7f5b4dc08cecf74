"""python -m bench.watched_relay: one relay without a supervisor, watched as its arguments say. Started by
bench/watching.py, never by hand; it prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import io
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from app.ipc import Allowance, AllowanceWanted, Amounts, Publish, frame, from_relay, read_frame
from app.log import set_up
from app.metrics import Children
from app.shared_counters import SharedCounters, create
from app.table import Backend, Budget, Key, KeyLimits, Price, PublicModel, Table, Target, Tracing
from backends.endpoint import Endpoint, State
from bench.profiled import profiled

MODEL: Final = "bench"
# So high that no request is refused, and what is granted of them at once: about a second's use.
LIMITS: Final = KeyLimits(10**9, 10**12, 10**5, Budget(1e9, "money", "month"))
GRANTED: Final = Amounts(2_000, 1_000_000, 100, 1_000)


class _Nothing:
    """A series that keeps nothing, and all of them: what is asked of it costs a call, as little as there is."""

    def inc(self) -> None:
        """One more."""

    dec = inc

    def observe(self, _: float) -> None:
        """A value."""

    def of(self, *_: str) -> _Nothing:
        """Any series."""
        return self

    attempt = failed = phase = fallback = retry_denied = placement = continued = limited = of
    late = observe

    def follow(self, _: Table) -> None:
        """What may be counted."""

    def refused(self, _: str) -> None:
        """A refusal."""


for _name in Children.__struct_fields__:
    setattr(_Nothing, _name, _Nothing())


def table(
    upstream: int, digests: Sequence[str], *, log: bool, collector: str | None, sampler: str, limits: bool
) -> Table:
    """One model at one backend, the keys with these digests (none: everybody); what is logged, traced and limited."""
    endpoint = Endpoint("peer", 1, f"http://127.0.0.1:{upstream}/v1")
    row = Backend("peer", "remote", State.READY, endpoint=endpoint)
    attributes = {"service.name": "bench", "service.version": "0"}
    tracing = Tracing(collector, attributes=attributes, sampler=sampler, interval_s=1.0) if collector else None
    return Table(
        version=1,
        models={MODEL: PublicModel(MODEL, (Target("peer", MODEL),), price=Price(0.2, 0.6, 0.1) if limits else None)},
        aliases={},
        wildcards=(),
        backends={"peer": row},
        keys=tuple(
            Key(f"client-{number}", each, limits=LIMITS if limits else None) for number, each in enumerate(digests)
        ),
        access_log=log,
        tracing=tracing,
    )


async def serve(shown: Table, *, counts: bool) -> None:
    """Serve until the standard input ends."""
    from app.relay import server  # after the log is in place

    if not counts:
        vars(server)["Metrics"] = lambda _: cast("Any", _Nothing())
    connections: list[asyncio.StreamWriter] = []

    async def publish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(frame(Publish(table=shown)))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked = from_relay.decode(await read_frame(reader))
                if isinstance(asked, AllowanceWanted):
                    writer.write(frame(Allowance(asked.seq, asked.key, GRANTED)))

    with (
        tempfile.TemporaryDirectory(prefix="modelport-watched-") as folder,
        socket.create_server(("127.0.0.1", 0), backlog=2048) as listener,
    ):
        state = Path(folder)
        async with await asyncio.start_unix_server(publish, state / "relay.sock"):
            running = asyncio.create_task(server.relay(listener, state, SharedCounters(create())))
            print(listener.getsockname()[1], flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            for writer in connections:
                writer.close()
            await running


def main() -> int:
    """Set up what the supervisor and `python -m app.relay` set up, and serve."""
    parser = argparse.ArgumentParser(prog="bench.watched_relay")
    parser.add_argument("--upstream", type=int, required=True)
    parser.add_argument("--no-counters", action="store_true")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--collector")
    parser.add_argument("--key", action="append", default=[], metavar="DIGEST")
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--profile", choices=("samples", "calls"))
    parser.add_argument("--profile-into", type=Path)
    parser.add_argument("--sampler", default="parentbased_always_on")
    options = parser.parse_args()
    written = options.log.open("w", buffering=1) if options.log is not None else io.StringIO()
    with contextlib.closing(written):
        set_up("json", "info", written)
        shown = table(
            options.upstream,
            options.key,
            log=options.log is not None,
            collector=options.collector,
            sampler=options.sampler,
            limits=options.limits,
        )
        import app.relay.server  # noqa: F401  # after the log is in place; not a part of a profile

        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        looking = profiled(options.profile, options.profile_into) if options.profile else contextlib.nullcontext()
        with looking:
            uvloop.run(serve(shown, counts=not options.no_counters))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a thread still waits for standard input where the relay has ended by itself
