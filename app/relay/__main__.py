"""`python -m app.relay`: started by the supervisor, never by hand."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, cast

import uvloop

from app import shared_counters
from app.log_format import LogFormat
from app.shared_counters import SharedCounters

_PR_SET_PDEATHSIG = 1
GARBAGE = 10_000


def die_with_parent() -> None:
    """Have the system end us with the supervisor, even when the loop is stuck (on Linux; elsewhere only the end of
    `relay.sock` shows that it is gone)."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            sys.exit(1)


def main() -> int:
    """Serve with the arguments that the supervisor passes; the process's exit code."""
    parser = argparse.ArgumentParser(prog="app.relay")
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--state", type=Path, required=True, help="the state folder with relay.sock and control.sock")
    parser.add_argument("--index", type=int, default=0, help="which of the relays this is")
    parser.add_argument("--counters", type=int, help="where its counters go; without it they stay in this process")
    parser.add_argument("--connections", type=int, help="where the relays tell each other how many they have")
    options = parser.parse_args()
    die_with_parent()
    # structlog loads it where it is there, for tracebacks that we never let it write: 5 MB of every relay's memory.
    sys.modules["rich"] = cast("Any", None)
    from app.log import set_up  # after the line above
    from app.relay.accepting import ConnectionNumbers
    from app.relay.server import relay

    log_format: LogFormat = "json" if os.environ.get("MODELPORT_LOG_FORMAT") == "json" else "console"
    set_up(log_format, os.environ.get("MODELPORT_LOG_LEVEL", "info"))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal signals all of us; the supervisor alone says when to stop
    # What is loaded now stays: the collector need not walk it again for every generation of requests.
    gc.collect()
    gc.freeze()
    # A request's objects are freed when it ends, without the collector, which only finds that they live: a walk for
    # every hundred requests instead of every seven.
    gc.set_threshold(GARBAGE, 20, 20)
    with socket.socket(fileno=options.fd) as listener:
        counters = SharedCounters(shared_counters.create() if options.counters is None else options.counters)
        numbers = None if options.connections is None else ConnectionNumbers(options.connections, options.index)
        return uvloop.run(relay(listener, options.state, counters, numbers))


if __name__ == "__main__":
    sys.exit(main())
