"""A program that a command waits for, behind a guard: it and all that it started end with this process, even when this
is killed, and on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final

from backends.process import guard

_HELD_BACK: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LONGEST_LINE: Final = 512 * 1024 * 1024  # bytes; a longer one arrives in parts
_END_S: Final = 15.0  # for the guard to end everything: 2 s of grace, and what a driver takes to die
AFTERWARDS_S: Final = 10.0  # for a program that has said all it had to


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    on_line: Callable[[bytes], bool],
    on_error_line: Callable[[bytes], None],
    stdin: bytes = b"",
) -> int:
    """Run the program to its end and return its exit code (negative: the signal).

    `on_line` gets each line of its output in this thread, and says whether that was the last that matters: from then on
    the program has AFTERWARDS_S to end. `on_error_line` gets those of its standard error, in another thread. Waits
    for as long as the program runs: some work for hours, and Ctrl-C ends it.
    """
    ours, theirs = socket.socketpair()
    started = [sys.executable, "-I", "-S", guard.__file__, str(theirs.fileno()), "-", *argv]
    # The guard ignores these; until its first line has run, they wait. The mask is inherited, a handler is not.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        popen = subprocess.Popen(
            started,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
    assert popen.stdin is not None
    assert popen.stdout is not None
    assert popen.stderr is not None
    # Threads, because each of the three pipes holds 64 KiB only, and what goes through them can be larger.
    writer = threading.Thread(target=_write, args=(popen.stdin, stdin), daemon=True)
    reader = threading.Thread(target=_read, args=(popen.stderr, on_error_line), daemon=True)
    late = threading.Timer(AFTERWARDS_S, _hang_up, (ours,))
    late.daemon = True
    try:
        writer.start()
        reader.start()
        while line := popen.stdout.readline(_LONGEST_LINE):
            if on_line(line) and not late.is_alive():
                late.start()
        reader.join()
        popen.wait()
        return _exit_code(ours, popen.returncode)
    finally:
        late.cancel()
        _hang_up(ours)
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(_END_S)
        ours.close()
        popen.stdout.close()


def _hang_up(ours: socket.socket) -> None:
    """For the guard that is our death: it ends everything. What it has told us can still be read."""
    with contextlib.suppress(OSError):
        ours.shutdown(socket.SHUT_WR)


def _write(pipe: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(OSError), pipe:  # it ended without reading all of it
        pipe.write(data)


def _read(pipe: IO[bytes], on_line: Callable[[bytes], None]) -> None:
    with pipe:
        while line := pipe.readline(65_536):
            on_line(line)


def _exit_code(ours: socket.socket, of_guard: int) -> int:
    """What the guard reported; where it was killed, its own."""
    said = b""
    with contextlib.suppress(OSError):
        while part := ours.recv(65_536):
            said += part
    codes = [line.split()[1] for line in said.splitlines() if line.startswith(b"exited ")]
    return int(codes[0]) if codes else of_guard or 1
