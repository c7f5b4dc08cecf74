"""A program on a terminal of its own: what it draws, the keys that it gets, the size that it has."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence

PATIENCE_S = 60.0
_STEERING = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")


class Terminal:
    """The program's terminal. `drawn`: every byte that it wrote."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], columns: int, lines: int) -> None:
        self._ours, self._theirs = pty.openpty()
        self.drawn = b""
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self._theirs)
        self.process = subprocess.Popen(
            list(command),
            env={"TERM": "xterm-256color", **env},
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            preexec_fn=self._lead,
        )

    def _lead(self) -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C becomes a signal

    def resize(self, columns: int, lines: int) -> None:
        """From now on it has this size."""
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        """Keys, as a keyboard sends them."""
        os.write(self._ours, keys)

    def read(self, seconds: float = 0.2) -> bytes:
        """What it drew in the meantime."""
        text = b""
        while select.select([self._ours], [], [], seconds)[0]:
            try:
                piece = os.read(self._ours, 65536)
            except OSError:
                break
            if not piece:
                break
            text += piece
            seconds = 0.05
        self.drawn += text
        return text

    def wait_for(self, pattern: str) -> str:
        """What it drew from now on, without colours, until this is in it."""
        text, end = b"", time.monotonic() + PATIENCE_S
        while True:
            text += self.read()
            plain = _STEERING.sub(b"", text).decode(errors="replace")
            if re.search(pattern, plain):
                return plain
            assert time.monotonic() < end, f"nothing like {pattern!r} in {plain[-2000:]!r}"
            assert self.process.poll() is None, f"it has ended: {plain[-2000:]!r}"

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < end, "it did not end"
        self.read()
        return int(self.process.returncode)

    def is_as_before(self) -> bool:
        """Whether the terminal's settings are what they were at its start."""
        return termios.tcgetattr(self._theirs) == self.before

    def close(self) -> None:
        """End the program, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@contextlib.contextmanager
def on_a_terminal(
    command: Sequence[str], env: Mapping[str, str], *, columns: int = 120, lines: int = 30
) -> Iterator[Terminal]:
    """The program on a terminal of this size."""
    terminal = Terminal(command, env, columns, lines)
    try:
        yield terminal
    finally:
        terminal.close()
