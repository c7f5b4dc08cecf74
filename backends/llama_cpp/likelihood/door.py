"""The door to the process that tells how likely prompts are: it listens, and starts that process when somebody comes.

A thread in the engine's process, so that whatever ends the engine ends both, and both count as one engine's memory. The
process inherits the listening socket and answers by itself; connections that come while it starts, or while it ends,
wait there.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

IDLE_S = 120.0  # without a request, before the process ends: its model is mapped again in a moment
HUNG_S = 600.0  # without a sign, while it works: a piece of 64 tokens has not taken so long on any machine
_PAUSE_S = 1.0  # after one that failed


def open_door(port: int) -> socket.socket:
    """The listening socket; OSError where the port is taken."""
    return socket.create_server(("127.0.0.1", port))


def attend(listener: socket.socket, options: Sequence[str], env: Mapping[str, str], idle_s: float = IDLE_S) -> None:
    """In a thread of its own, start the process whenever somebody comes and it does not run; returns at once."""
    threading.Thread(target=_attend, args=(listener, options, env, idle_s), daemon=True).start()


def _attend(listener: socket.socket, options: Sequence[str], env: Mapping[str, str], idle_s: float) -> None:
    line = [sys.executable, "-I", str(Path(__file__).with_name("child.py")), *options]
    while True:
        select.select([listener], [], [])
        try:
            code = _run([*line, f"--listener={listener.fileno()}", f"--idle={idle_s}"], env, listener.fileno())
        except OSError as exc:
            print(f"likelihood process not started: {exc.strerror}", flush=True)
            code = -1
        if code:
            time.sleep(_PAUSE_S)


def _run(line: Sequence[str], env: Mapping[str, str], listener: int) -> int:
    """From its start to its end; returns its exit code. It is killed when it hangs."""
    with subprocess.Popen(
        line, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(listener,)
    ) as process:
        assert process.stdout is not None
        print(f"likelihood process {process.pid} started", flush=True)
        descriptor, works = process.stdout.fileno(), True
        while True:
            if not select.select([descriptor], [], [], HUNG_S if works else None)[0]:
                print(f"likelihood process {process.pid} hangs, and is killed", flush=True)
                process.kill()
                break
            said = os.read(descriptor, 4096)
            if not said:
                break
            works = said.endswith(b"+")
        code = process.wait()
    print(f"likelihood process {process.pid} ended with {code}", flush=True)
    return code
