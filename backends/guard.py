"""The process between the supervisor and one engine: nothing of the engine outlives it, and it outlives nobody.

Started by path with `python -I -S`, so it needs the standard library only. Its first argument is the descriptor of a
socket to the supervisor. The supervisor writes lines: `term`, `kill`. The guard writes lines: `started PID`,
`exited STATUS` (negative: the signal). End of file means that the supervisor is dead, even by SIGKILL: TERM, a short
grace, KILL. The guard exits when it has no descendant left.

Linux: it is the subreaper of everything below it, so a process that made its own session still counts as a
descendant; and the engine dies with it (PDEATHSIG). Elsewhere there is the engine's process group only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import time

ORPHAN_GRACE_S = 2.0  # for an engine whose supervisor died; everything is to be gone within 5 s
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IS_LINUX = sys.platform == "linux"


def become_subreaper() -> None:
    """Orphans below this process become its children (Linux; elsewhere nothing)."""
    if IS_LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Every process below `root`, zombies included, in no order. Empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib is a slow import for this process
            if entry.isdigit():
                children.setdefault(_parent(entry), []).append(int(entry))
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            # The name in parentheses may hold anything, also spaces and parentheses.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _engine(argv: list[str], guard: int) -> None:
    """In the forked child: become the engine, with a clean slate of signals and no descriptor but 0, 1 and 2."""
    try:
        if IS_LINUX:
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:  # it died before the line above
            os._exit(1)
        os.setsid()
        for number in (*_IGNORED, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.closerange(3, 4096)
        os.execvpe(argv[0], argv, _environment())  # noqa: S606 - a list, and no shell
    except OSError as error:
        os.write(2, f"cannot start {argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _environment() -> dict[bytes, bytes]:
    """What we were started with; Python itself may have added to os.environ (LC_CTYPE)."""
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123
            pairs = (line.partition(b"=") for line in file.read().split(b"\0") if line)
            return {name: value for name, _, value in pairs}
    except OSError:
        return dict(os.environb)


class Guard:
    """One engine's guard; `run` returns when nothing of the engine is left."""

    def __init__(self, line: socket.socket, argv: list[str]) -> None:
        self._line = line
        self._argv = argv
        self._engine = 0
        self._is_engine_alive = False
        self._kill_at: float | None = None

    def run(self) -> None:
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        guard = os.getpid()
        self._engine = os.fork()
        if self._engine == 0:
            _engine(self._argv, guard)
        self._is_engine_alive = True
        self._say(f"started {self._engine}")
        sources = [self._line.fileno(), wake_read]
        while self._is_engine_alive:
            wait_s = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
            ready, _, _ = select.select(sources, [], [], wait_s)
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                self._reap()
            if self._line.fileno() in ready and not self._hear():
                sources.remove(self._line.fileno())
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                break
        self._kill_all()

    def _hear(self) -> bool:
        """Do what the supervisor says; False when it is dead."""
        try:
            words = self._line.recv(4096).split()
        except OSError:
            words = []
        if not words:
            self._signal(signal.SIGTERM)
            self._kill_at = time.monotonic() + ORPHAN_GRACE_S
            return False
        if b"kill" in words:
            self._kill_at = time.monotonic()
        elif b"term" in words:
            self._signal(signal.SIGTERM)
        return True

    def _signal(self, number: int) -> None:
        """To the engine's process group."""
        with contextlib.suppress(OSError):
            os.killpg(self._engine, number)

    def _reap(self) -> bool:
        """Take the exit of every child that has ended; False when there is no child at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._engine:
                self._is_engine_alive = False
                self._say(f"exited {os.waitstatus_to_exitcode(status)}")

    def _kill_all(self) -> None:
        """KILL until there is no child."""
        self._signal(signal.SIGKILL)
        pause_s = 0.01
        while True:
            for pid in descendants(os.getpid()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if not self._reap():
                return
            time.sleep(pause_s)
            pause_s = min(0.2, pause_s * 1.5)  # a process inside a driver may take long to die

    def _say(self, words: str) -> None:
        with contextlib.suppress(OSError):  # the supervisor died; the lifeline says so too
            self._line.sendall(f"{words}\n".encode())


def main(argv: list[str]) -> None:
    """`guard.py SOCKET_FD ENGINE_ARGV…`"""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # The supervisor blocked them around our start, so that none came before the lines above.
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    become_subreaper()
    descriptor = int(argv[0])
    os.set_inheritable(descriptor, False)
    Guard(socket.socket(fileno=descriptor), argv[1:]).run()


if __name__ == "__main__":
    main(sys.argv[1:])
