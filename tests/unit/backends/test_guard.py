"""What a guard does to its engine: real processes, with orders over its socket."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

import pytest

from backends.process import guard

# An engine that leaves a process in a session of its own, and says the pids of both.
WITH_ESCAPED = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(600)
"""
DESCRIPTORS = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1])"
# The kernel's own copy: what the engine was started with, before its Python adds anything.
ENVIRONMENT = "print(open('/proc/self/environ').read().split('\\0')[:-1])"
SIGNALS = "print(*(line for line in open('/proc/self/status') if line.startswith(('SigBlk', 'SigIgn'))))"


class Guarded:
    """A guard with its engine; the test is its supervisor."""

    def __init__(self, program: str) -> None:
        self.line, theirs = socket.socketpair()
        self.line.settimeout(30)
        engine = [sys.executable, "-S", "-c", program]
        argv = [sys.executable, "-I", "-S", guard.__file__, str(theirs.fileno()), "-", *engine]
        self.popen = subprocess.Popen(
            argv,
            env={"ONLY": "this"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        theirs.close()
        assert self.popen.stdout is not None
        self.output = self.popen.stdout
        self.reports = self.line.makefile("rb")

    def printed(self) -> str:
        return self.output.readline().decode().strip()

    def report(self) -> list[str]:
        return self.reports.readline().decode().split()

    def close(self) -> None:
        """A guard that is killed leaves what its engine started elsewhere; one that is ordered to end does not."""
        with contextlib.suppress(OSError):
            self.line.sendall(b"kill\n")
        self.line.close()
        self.reports.close()
        try:
            self.popen.wait(30)
        finally:
            self.popen.kill()
            self.popen.wait()
            self.output.close()


@contextlib.contextmanager
def guarded(program: str) -> Iterator[Guarded]:
    each = Guarded(program)
    try:
        yield each
    finally:
        each.close()


def test_it_reports_the_start_and_the_exit_of_its_engine() -> None:
    with guarded("import os, sys; print(os.getpid(), flush=True); sys.exit(3)") as each:
        pid = each.printed()

        assert each.report() == ["started", pid]
        assert each.report() == ["exited", "3"]
        assert each.popen.wait(30) == 0


def test_an_engine_that_cannot_be_started_exits_with_127_and_says_why() -> None:
    ours, theirs = socket.socketpair()
    argv = [sys.executable, "-I", "-S", guard.__file__, str(theirs.fileno()), "-", "/no/such/engine", "--port", "1"]

    with ours, theirs:
        done = subprocess.run(argv, pass_fds=[theirs.fileno()], capture_output=True, check=False, timeout=30)

        assert done.stderr == b"cannot start /no/such/engine: No such file or directory\n"
        assert ours.recv(4096).split()[2:] == [b"exited", b"127"]


def test_the_engine_gets_the_environment_it_was_given_and_nothing_else() -> None:
    with guarded(ENVIRONMENT) as each:
        assert each.printed() == "['ONLY=this']"


def test_the_engine_inherits_no_descriptor_and_no_signal_setting() -> None:
    with guarded(DESCRIPTORS) as each:
        assert each.printed() == "[0, 1, 2]"
    with guarded(SIGNALS) as each:
        blocked, ignored = each.printed(), each.printed()
        assert int(blocked.split()[1], 16) == 0
        # Python ignores SIGPIPE and SIGXFSZ in every process of its own; 32 and 33 are the C library's.
        assert int(ignored.split()[1], 16) & ~(1 << 12 | 1 << 24 | 1 << 31 | 1 << 32) == 0


def test_signals_that_the_gateway_was_started_to_ignore_are_not_ignored_by_its_engine() -> None:
    """A shell's background job ignores SIGINT and SIGQUIT, and so did every engine of a gateway started that way."""
    ignored = (signal.SIGQUIT, signal.SIGINT, signal.SIGUSR1, signal.SIGTSTP)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    try:
        with guarded(SIGNALS) as each:
            each.printed()
            assert int(each.printed().split()[1], 16) & ~(1 << 12 | 1 << 24 | 1 << 31 | 1 << 32) == 0
    finally:
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)


def test_the_engine_has_a_session_of_its_own() -> None:
    with guarded("import os; print(os.getpid() == os.getsid(0) == os.getpgid(0))") as each:
        assert each.printed() == "True"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_guard_ends_nothing(number: signal.Signals) -> None:
    with guarded(DEAF) as each:
        pid = int(each.printed())
        each.report()

        each.popen.send_signal(number)
        each.line.sendall(b"term\n")  # read after the signal was dealt with; the engine ignores it

        assert each.popen.poll() is None
        os.kill(pid, signal.SIGUSR1)
        assert each.report() == ["exited", str(-signal.SIGUSR1)]


def test_when_its_word_is_term_the_engine_gets_term() -> None:
    with guarded("import os, time; print(1, flush=True); time.sleep(600)") as each:
        each.printed()
        each.report()

        each.line.sendall(b"term\n")

        assert each.report() == ["exited", str(-signal.SIGTERM)]


def test_kill_ends_what_ignores_term() -> None:
    with guarded(DEAF) as each:
        each.printed()
        each.report()

        each.line.sendall(b"term\nkill\n")

        assert each.report() == ["exited", str(-signal.SIGKILL)]


def test_what_the_engine_left_behind_in_another_session_ends_with_it() -> None:
    with guarded(WITH_ESCAPED) as each:
        engine, escaped = map(int, each.printed().split())
        each.report()

        os.kill(engine, signal.SIGKILL)

        assert each.report() == ["exited", str(-signal.SIGKILL)]
        each.popen.wait(30)
        assert not Path(f"/proc/{escaped}").exists()


@pytest.mark.parametrize("program", [DEAF, WITH_ESCAPED], ids=["deaf", "escaped"])
def test_when_its_supervisor_is_gone_everything_ends(program: str) -> None:
    with guarded(program) as each:
        pids = [int(pid) for pid in each.printed().split()]

        each.reports.close()
        each.line.close()

        each.popen.wait(30)
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_when_the_guard_is_killed_its_engine_dies_with_it() -> None:
    with guarded(DEAF) as each:
        engine = os.pidfd_open(int(each.printed()))

        each.popen.kill()

        assert select.select([engine], [], [], 30)[0]
        os.close(engine)


def test_descendants_are_found_however_deep() -> None:
    with guarded(WITH_ESCAPED) as each:
        pids = {int(pid) for pid in each.printed().split()}

        assert set(guard.descendants(each.popen.pid)) == pids
        assert pids <= set(guard.descendants(os.getpid()))


def test_shared_memory_that_somebody_else_has_too_is_left_alone() -> None:
    memory = shared_memory.SharedMemory(create=True, size=64)
    path = Path("/dev/shm") / memory.name.lstrip("/")
    try:
        assert str(path) in guard.shared_files([os.getpid()])

        guard.remove_unused({str(path)})

        assert path.exists()
    finally:
        memory.close()
        guard.remove_unused({str(path)})
        is_there = path.exists()
        memory.unlink() if is_there else resource_tracker.unregister(f"/{path.name}", "shared_memory")
        assert not is_there
