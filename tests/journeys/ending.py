"""A gateway that is told to end while many ask it, in every way that it is told so: `python -m tests.journeys.ending`.

It prints what became of the requests, and exits with 1 where one that was accepted failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.journeys.gateway import Fake, Gateway
from tests.rigs.program import PATIENCE_S
from tests.rigs.traffic import Tally, Traffic

WAYS: Final = ("process", "group", "make")
CONFIG = """
server: {{relays: {relays}, drain_delay_s: {delay_s}, drain_s: {drain_s}}}
backends:
  fake: {{kind: remote, url: "{url}"}}
models:
  "fake/*": {{backend: fake}}
"""
# The gateway below `make`, whose own exit code make does not pass on.
_NOTED = """
import pathlib, sys
del sys.argv[1:3]
sys.path.insert(0, "")
from app.__main__ import main
try:
    main()
except SystemExit as exc:
    pathlib.Path(__file__).with_name("code").write_text(str(exc.code or 0))
    raise
"""
_EXEC = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class Ending:
    """How it went. `code`: the gateway's own exit code; `not_ready_ms`: from the signal to the first 503 of `/readyz`
    (None: nobody saw one); `ready_again`: whether it said 200 after that; `took_s`: from the signal to its end."""

    tally: Tally
    code: int
    not_ready_ms: float | None
    ready_again: bool
    took_s: float


def end(
    folder: Path,
    engine: Fake,
    way: str,
    *,
    relays: int = 1,
    rate: float = 50,
    streams: int = 20,
    stream_s: float = 1.5,
    delay_s: float = 1.0,
) -> Ending:
    """Start a gateway, ask it steadily, tell it to end: the process, its group with `make` in it, or `make` alone."""
    config = CONFIG.format(relays=relays, delay_s=delay_s, drain_s=stream_s * 4 + 10, url=engine.url)
    with Gateway(folder, config, under=list if way == "process" else partial(_make, folder)) as gateway:
        gateway.line("fake: ready in")
        traffic = Traffic(gateway.url, "fake/", rate, streams, stream_s)
        told_at = asyncio.run(_told(gateway, way, traffic))
        code = gateway.process.wait(PATIENCE_S)
        took_s = time.monotonic() - told_at
        if way != "process":
            code = int((folder / "code").read_text())
    tally = traffic.tally
    not_ready_at, ready_at = tally.not_ready_at, tally.ready_at
    return Ending(
        tally,
        code,
        None if not_ready_at is None else (not_ready_at - told_at) * 1000,
        not_ready_at is not None and ready_at is not None and ready_at > not_ready_at,
        took_s,
    )


def _make(folder: Path, argv: list[str]) -> list[str]:
    """`make run` with these options, where everything is installed already."""
    done, program = folder / "done", folder / "noted.py"
    done.mkdir()
    for name in ("runtime", "demo"):
        (done / name).touch()
    program.write_text(_NOTED)
    options = " ".join(argv[argv.index("serve") + 1 :])
    variables = {"VENV": sys.prefix, "DONE": done, "PY": f"{sys.executable} {program}", "ARGS": options}
    return [sys.executable, "-c", _EXEC, "make", "run", *(f"{name}={value}" for name, value in variables.items())]


async def _told(gateway: Gateway, way: str, traffic: Traffic) -> float:
    """Returns when the signal was sent, once all requests are over."""
    asking = asyncio.create_task(traffic.run())
    async with asyncio.timeout(PATIENCE_S):
        await traffic.begun.wait()
    told_at = time.monotonic()
    if way == "group":
        os.killpg(gateway.process.pid, signal.SIGTERM)
    else:
        gateway.process.send_signal(signal.SIGTERM)
    traffic.is_told = True
    async with asyncio.timeout(PATIENCE_S):
        await asking
    return told_at


def _line(way: str, relays: int, ending: Ending) -> str:
    tally = ending.tally
    not_ready = "never" if ending.not_ready_ms is None else f"after {ending.not_ready_ms:.0f} ms"
    return (
        f"{way:8} relays={relays}  failed {tally.failed.total()}  answered {tally.answered} "
        f"({tally.answered_while_ending} while it ended)  streams {tally.streamed}  refused {tally.refused}  "
        f"not ready {not_ready}  exit code {ending.code}  over after {ending.took_s:.1f} s"
    )


def main() -> int:
    """Every way, with one relay and with two."""
    parser = argparse.ArgumentParser(prog="tests.journeys.ending", description=__doc__)
    parser.add_argument("--rate", type=float, default=50, help="requests that begin in a second")
    parser.add_argument("--streams", type=int, default=20, help="streams under way at any time")
    parser.add_argument("--stream-s", type=float, default=4, help="how long one takes")
    parser.add_argument("--delay-s", type=float, default=5, help="server.drain_delay_s")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    failed = 0
    with Fake() as engine:
        for way in WAYS * options.rounds:
            for relays in (1, 2):
                with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
                    ending = end(
                        Path(folder),
                        engine,
                        way,
                        relays=relays,
                        rate=options.rate,
                        streams=options.streams,
                        stream_s=options.stream_s,
                        delay_s=options.delay_s,
                    )
                print(_line(way, relays, ending), flush=True)
                for reason, count in ending.tally.failed.items():
                    print(f"  {count} x {reason}", flush=True)
                failed += ending.tally.failed.total() + ending.code
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
