"""The process between the supervisor and one engine: nothing of the engine outlives it, and it outlives nobody.

Started by path with `python -I -S`, so it needs the standard library only. Its first argument is the descriptor of a
socket to the supervisor, followed by those that it only keeps open as long as it lives (the lock of the folder), with
commas between; its second is the engine's folder for temporary files (`-`: none).

The supervisor writes the lines `term` and `kill`. The guard writes the lines `started PID`, `holds PATH` (a file of
shared memory) and `exited STATUS` (negative: the signal). End of file means that the supervisor is dead, even by
SIGKILL: TERM, a short grace, KILL. The guard exits when it has no descendant left, and has removed their temporary
files and their shared memory.

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
TIDY_S = 2.0  # from the last death on: for Python's resource tracker to remove what only it can
LOOK_S = 5.0  # between looks at what shared memory the engine has; what it has at its end is seen then
SHARED = "/dev/shm/"  # noqa: S108 - where the system has shared memory, not a place for temporary files
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
    everybody: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        everybody += below
        todo += below
    return everybody


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            # The name in parentheses may hold anything, also spaces and parentheses.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def is_tracker(pid: int) -> bool:
    """Whether this is Python's resource tracker: it removes semaphores and shared memory once its users are dead."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            return b"multiprocessing.resource_tracker" in file.read()
    except OSError:
        return False


def shared_files(pids: list[int]) -> set[str]:
    """The files of shared memory that these processes have mapped or open. Empty where there is no /proc."""
    paths: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as maps:  # noqa: PTH123
            paths.update(os.fsdecode(line[line.index(b"/") : -1]) for line in maps if b" /dev/shm/" in line)
        with contextlib.suppress(OSError):
            for entry in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    paths.add(os.readlink(f"/proc/{pid}/fd/{entry}"))  # noqa: PTH115
    return {path for path in paths if path.startswith(SHARED) and not path.endswith(" (deleted)")}


def remove_unused(files: set[str]) -> None:
    """Remove those of these files of shared memory that no process has open or mapped any more."""
    left = {path for path in files if os.path.exists(path)}  # noqa: PTH110
    if left:
        everybody = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208
        for path in left - shared_files(everybody):
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108


def remove_folder(folder: str) -> None:
    """Remove the engine's temporary files; what cannot be removed stays."""
    if folder != "-":
        import shutil  # slow, and needed at the end only

        shutil.rmtree(folder, ignore_errors=True)


def _engine(argv: list[str], guard: int) -> None:
    """In the forked child: become the engine, with every signal's default and no descriptor but 0, 1 and 2."""
    try:
        if IS_LINUX:
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:  # it died before the line above
            os._exit(1)
        os.setsid()
        # All of them: what is ignored stays so over exec, by us, by Python (SIGPIPE, SIGXFSZ) and by who started us
        # (a shell's background job ignores SIGINT and SIGQUIT).
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):  # the C library's own
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

    def __init__(self, supervisor: socket.socket, folder: str, argv: list[str]) -> None:
        self._supervisor = supervisor
        self._folder = folder
        self._argv = argv
        self._held: set[str] = set()
        self._others: set[str] = set()  # what shared memory was there before the engine
        with contextlib.suppress(OSError):
            self._others = {SHARED + name for name in os.listdir(SHARED)}  # noqa: PTH208
        self._engine = 0
        self._is_engine_alive = False
        self._kill_at: float | None = None

    def run(self) -> None:
        """Start the engine, obey the supervisor, and clean up after the engine's end. Called once."""
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
        self._report(f"started {self._engine}")
        sources = [self._supervisor.fileno(), wake_read]
        look_at = time.monotonic() + LOOK_S
        while self._is_engine_alive:
            wait_s = (look_at if self._kill_at is None else min(look_at, self._kill_at)) - time.monotonic()
            ready, _, _ = select.select(sources, [], [], max(0.0, wait_s))
            if time.monotonic() >= look_at:
                self._look()
                look_at = time.monotonic() + LOOK_S
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                self._reap()
            if self._supervisor.fileno() in ready and not self._obey():
                sources.remove(self._supervisor.fileno())
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                break
        self._look()
        self._kill_all()
        remove_unused(self._held)
        remove_folder(self._folder)

    def _look(self) -> None:
        """Note and report what shared memory the engine has: once it is dead, nobody can find that out."""
        new = shared_files(descendants(os.getpid())) - self._held - self._others
        self._held |= new
        for path in new:
            self._report(f"holds {path}")

    def _obey(self) -> bool:
        """Do what the supervisor orders; False when it is dead."""
        try:
            orders = self._supervisor.recv(4096).split()
        except OSError:
            orders = []
        if not orders:
            self._signal(signal.SIGTERM)
            self._kill_at = time.monotonic() + ORPHAN_GRACE_S
            return False
        if b"kill" in orders:
            self._kill_at = time.monotonic()
        elif b"term" in orders:
            self._signal(signal.SIGTERM)
        return True

    def _signal(self, number: int) -> None:
        """To the engine's process group."""
        with contextlib.suppress(OSError):
            os.killpg(self._engine, number)

    def _reap(self) -> bool:
        """Reap every child that has ended; False when there is no child at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._engine:
                self._is_engine_alive = False
                self._report(f"exited {os.waitstatus_to_exitcode(status)}")

    def _kill_all(self) -> None:
        """KILL until there is no child; trackers, which end by themselves once they are alone, only after a while."""
        if not IS_LINUX:
            self._signal(signal.SIGKILL)
        pause_s = 0.01
        tidy_at = 0.0
        while True:
            below = descendants(os.getpid())
            others = [pid for pid in below if not is_tracker(pid)]
            if others or not tidy_at:
                tidy_at = time.monotonic() + TIDY_S
            for pid in others if time.monotonic() < tidy_at else below:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if not self._reap():
                return
            time.sleep(pause_s)
            pause_s = min(0.2, pause_s * 1.5)  # a process inside a driver may take long to die

    def _report(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the supervisor died; its socket says so too
            self._supervisor.sendall(f"{line}\n".encode())


def main(argv: list[str]) -> None:
    """Run one engine: `guard.py SOCKET_FD[,KEPT_FD…] FOLDER ENGINE_ARGV…`."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # The supervisor blocked them around our start, so that none came before the lines above.
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    become_subreaper()
    descriptor, *kept = map(int, argv[0].split(","))
    for each in (descriptor, *kept):
        os.set_inheritable(each, False)
    Guard(socket.socket(fileno=descriptor), argv[1], argv[2:]).run()


if __name__ == "__main__":
    main(sys.argv[1:])
