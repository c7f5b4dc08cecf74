"""The door to the process that tells how likely prompts are: it listens, and starts that process when somebody comes.

A thread in the engine's process, so that whatever ends the engine ends both, and both count as one engine's memory. The
process inherits the listening socket and answers by itself; connections that come while it starts, or while it ends,
wait there, also those to one that is killed because it takes nobody in.
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
from typing import NamedTuple

IDLE_S = 120.0  # without a request, before the process ends: its model is mapped again in a moment
HUNG_S = 600.0  # without a sign, while it works, where an engine's time for its first byte is not told
TAKEN_S = 30.0  # for somebody who comes to be taken in while nothing is done: it takes no computing
LOADED_S = 60.0  # is the least that a process gets for a piece of work: it may have to load its model
_PAUSE_S = 1.0  # after one that failed


def open_door(port: int) -> socket.socket:
    """The listening socket; OSError where the port is taken."""
    return socket.create_server(("127.0.0.1", port))


class Patience(NamedTuple):
    """How long the process is waited for, in seconds. `hung_s`: for a sign while it works; `taken_s`: for a request to
    be taken in while it does not. After that it hangs.
    """

    idle_s: float = IDLE_S
    hung_s: float = HUNG_S
    taken_s: float = TAKEN_S


def patience(first_byte_s: float) -> Patience:
    """As long as whoever asks waits for the first byte of an answer, but long enough for a model to be loaded."""
    return Patience(hung_s=max(first_byte_s, LOADED_S), taken_s=min(first_byte_s, TAKEN_S))


def attend(listener: socket.socket, options: Sequence[str], env: Mapping[str, str], waits: Patience) -> None:
    """In a thread of its own, start the process whenever somebody comes and it does not run; returns at once."""
    threading.Thread(target=_attend, args=(listener, options, env, waits), daemon=True).start()


def _attend(listener: socket.socket, options: Sequence[str], env: Mapping[str, str], waits: Patience) -> None:
    line = [sys.executable, "-I", str(Path(__file__).with_name("child.py")), *options]
    while True:
        select.select([listener], [], [])
        try:
            code = _run([*line, f"--listener={listener.fileno()}", f"--idle={waits.idle_s}"], env, listener, waits)
        except OSError as exc:
            print(f"likelihood process not started: {exc.strerror}", flush=True)
            code = -1
        if code:
            time.sleep(_PAUSE_S)


def _run(line: Sequence[str], env: Mapping[str, str], listener: socket.socket, waits: Patience) -> int:
    """From its start to its end; returns its exit code. It is killed when it hangs."""
    with subprocess.Popen(
        line, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(listener.fileno(),)
    ) as process:
        assert process.stdout is not None
        print(f"likelihood process {process.pid} started", flush=True)
        descriptor, works = process.stdout.fileno(), True
        while True:
            if not works:
                select.select([descriptor, listener.fileno()], [], [])
            if not select.select([descriptor], [], [], waits.hung_s if works else waits.taken_s)[0]:
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
