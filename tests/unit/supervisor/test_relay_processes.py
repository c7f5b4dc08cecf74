"""The relays as processes: a stand-in program on a real inherited socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.supervisor.listener import listen
from app.supervisor.metrics.relay_counters import RelayCounters
from app.supervisor.relays.processes import Relays, argv, end_words, environment, pause_s
from tests import ROOT

PATIENCE_S = 20.0
# Says its pid and index on every connection, then does what it is told.
STAND_IN = """
import os, signal, socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listener.accept()
    connection.sendall(f"{os.getpid()} {sys.argv[2]}".encode())
    order = connection.recv(10)
    if order == b"count":
        from app.shared_counters import Family, SharedCounters
        ledger = SharedCounters(int(sys.argv[3]))
        ledger.gauges(Family("gauge", "doing", "d"))[()].set(1)
        ledger.counters(Family("counter", "done_total", "d"))[()].inc()
    if order == b"spoil":
        os.pwrite(int(sys.argv[3]), b"\x7f" * 64, 0)
    if order == b"exit":
        sys.exit(3)
    if order == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


class Stage:
    def __init__(self, public: socket.socket, relays: Relays, counters: RelayCounters) -> None:
        self.relays = relays
        self._counters = counters
        self._address = public.getsockname()

    async def ask(self, order: bytes = b"go on") -> int:
        """The pid of the relay that answered; it has been told the order."""
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(*self._address)
            pid, _index = (await reader.read(100)).split()
            writer.write(order)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return int(pid)

    def counted(self) -> dict[str, float]:
        """All counts, by name."""
        families = text_string_to_metric_families(self._counters.render().decode())
        return {sample.name: sample.value for family in families for sample in family.samples}

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_true():  # noqa: ASYNC110  # other processes have no Event for us
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def staged(
    program: str = STAND_IN,
    executable: str = sys.executable,
    check: Callable[[], None] = lambda: None,
) -> AsyncIterator[Stage]:
    with contextlib.closing(listen("127.0.0.1", 0)) as public:
        # A program that was started before accepts without waiting for others.
        public.setblocking(True)
        counters = RelayCounters()
        relays = Relays(
            public.fileno(),
            counters,
            environment(os.environ, "json", "info"),
            lambda index, ledger: [executable, "-c", program, str(public.fileno()), str(index), str(ledger)],
            check,
        )
        try:
            yield Stage(public, relays, counters)
        finally:
            relays.kill()
            await relays.close(PATIENCE_S)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_the_first_death_is_made_good_at_once_and_a_dying_row_ever_more_slowly() -> None:
    pauses = [pause_s(short_lives) for short_lives in range(11)]

    assert pauses == [0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert pause_s(100_000) == 5.0


def test_a_relay_is_started_without_the_working_folder_on_its_path() -> None:
    assert argv(9, Path("/state"), 1, 7) == [
        sys.executable, "-P", "-m", "app.relay", "--fd", "9", "--state", "/state", "--index", "1", "--counters", "7"
    ]  # fmt: skip


def test_a_relay_gets_no_secret_from_our_environment() -> None:
    ours = {"PATH": "/bin", "LC_ALL": "C", "API_KEY": "s3cret", "UPSTREAM_KEY": "s3cret", "PYTHONSTARTUP": "x.py"}

    env = environment(ours, "json", "debug")

    assert env.pop("PYTHONPATH") == str(ROOT)
    assert env == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "MODELPORT_LOG_FORMAT": "json",
        "MODELPORT_LOG_LEVEL": "debug",
    }


def test_the_end_of_a_process_is_told_in_words() -> None:
    assert end_words(0) == "exit code 0"
    assert end_words(-9) == "SIGKILL"


async def test_as_many_relays_as_asked_share_the_socket() -> None:
    async with staged() as stage:
        stage.relays.start(2)
        await stage.until(lambda: len(stage.relays.pids) == 2)

        assert await stage.ask() in stage.relays.pids


@pytest.mark.parametrize("order", [b"exit", b"kill"])
async def test_a_relay_that_ends_is_replaced_and_the_socket_never_refuses(order: bytes) -> None:
    async with staged() as stage:
        stage.relays.start(1)

        first = await stage.ask(order)
        second = await stage.ask()

        assert second != first
        assert stage.relays.restarts == 1
        assert stage.relays.pids == (second,)
        assert not _is_alive(first)


async def test_what_a_dead_relay_counted_stays_and_what_it_was_doing_does_not() -> None:
    async with staged() as stage:
        stage.relays.start(1)
        await stage.ask(b"count")
        await stage.until(lambda: stage.counted() == {"doing": 1, "done_total": 1})

        await stage.ask(b"kill")

        await stage.until(lambda: stage.counted() == {"done_total": 1})


async def test_counts_that_cannot_be_read_do_not_end_the_keeping() -> None:
    async with staged() as stage:
        stage.relays.start(1)
        first = await stage.ask(b"spoil")

        await stage.ask(b"kill")

        assert await stage.ask() != first
        assert stage.counted() == {}


async def test_no_descriptor_stays_open_behind_a_relay() -> None:
    async with staged() as stage:
        stage.relays.start(1)
        await stage.ask()
        before = _descriptors()

        for _ in range(3):
            await stage.ask(b"kill")
            await stage.until(lambda: len(stage.relays.pids) == 1)
        await stage.ask()

        await stage.until(lambda: _descriptors() <= before)


async def test_where_no_relay_could_work_none_is_started_again() -> None:
    def check() -> None:
        raise FileNotFoundError("the folder is gone")

    async with staged(check=check) as stage:
        stage.relays.start(1)
        await stage.ask(b"kill")

        with pytest.raises(FileNotFoundError, match="the folder is gone"):
            await stage.relays.failed()


async def test_relays_that_cannot_start_are_tried_again(tmp_path: Path) -> None:
    async with staged(executable=str(tmp_path / "missing")) as stage:
        stage.relays.start(1)

        await stage.until(lambda: stage.relays.restarts >= 2)

        assert stage.relays.pids == ()


async def test_closing_waits_for_those_that_end_by_themselves() -> None:
    async with staged() as stage:
        stage.relays.start(1)
        await stage.ask()
        closing = asyncio.create_task(stage.relays.close(PATIENCE_S))
        await asyncio.sleep(0)

        await stage.ask(b"exit")
        await closing

        assert stage.relays.pids == ()
        assert stage.relays.restarts == 0


async def test_closing_kills_those_that_do_not_end() -> None:
    async with staged() as stage:
        stage.relays.start(2)
        await stage.until(lambda: len(stage.relays.pids) == 2)
        pids = stage.relays.pids

        await stage.relays.close(0.05)

        assert not any(_is_alive(pid) for pid in pids)


async def test_a_relay_at_fault_is_killed_at_once_and_replaced() -> None:
    async with staged() as stage:
        stage.relays.start(1)
        first = await stage.ask()

        stage.relays.lost(first, is_at_fault=True)

        assert await stage.ask() != first


async def test_a_pid_that_is_no_relay_is_never_signalled() -> None:
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    async with staged() as stage:
        stage.relays.lost(other.pid, is_at_fault=True)
        stage.relays.lost(other.pid, is_at_fault=False)

    assert other.returncode is None
    await other.communicate(b"\n")
    assert other.returncode == 0


async def test_ctrl_c_in_the_terminal_is_not_the_relays_to_hear() -> None:
    async with staged() as stage:
        stage.relays.start(1)
        pid = await stage.ask()

        assert os.getsid(pid) == pid
        assert os.getpgid(pid) != os.getpgid(0)
