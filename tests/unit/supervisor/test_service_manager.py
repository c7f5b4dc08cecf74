"""What a service manager hears: a real datagram socket in its place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from app.config.model import Config
from app.supervisor.fleet.status import BackendStatus
from app.supervisor.service_manager.notify_socket import (
    MOST_WAITING,
    NotifySocket,
    ServiceVariables,
    address,
    take_variables,
    watchdog_s,
)
from app.supervisor.service_manager.service_reports import MARGIN_S, ServiceReports, longest_stop_s, status_line
from backends.endpoint import State
from tests.rigs.serving import PATIENCE_S, running, until


class Manager:
    """The service manager's end; `heard` is every message so far, as its lines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        self._socket.settimeout(PATIENCE_S)

    def close(self) -> None:
        self._socket.close()

    def next(self) -> list[str]:
        """The next message; waits for it."""
        self.heard.append(self._socket.recv(65_536).decode().split("\n"))
        return self.heard[-1]

    def has_nothing(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        readable, _, _ = select.select([self._socket], [], [], seconds)
        return not readable

    def until(self, line: str) -> list[str]:
        """The next message that has this line."""
        while True:
            if line in (lines := self.next()):
                return lines


@contextlib.contextmanager
def _manager(name: str) -> Iterator[Manager]:
    manager = Manager(name)
    try:
        yield manager
    finally:
        manager.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with _manager(str(tmp_path / "notify")) as manager:
        yield manager


def _status(name: str, state: State) -> BackendStatus:
    return BackendStatus(name, "vllm", state, None, 1, None, 0, 0.0, None, 0, None, None)


# -- what the environment says


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/run/systemd/notify", b"/run/systemd/notify"),
        ("@/org/freedesktop/notify", b"\0/org/freedesktop/notify"),
        ("", None),
        ("@", None),
        ("notify", None),
        ("vsock:2:1234", None),
    ],
)
def test_an_address_is_a_path_or_an_abstract_name(text: str, expected: bytes | None) -> None:
    assert address(text) == expected


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", "", 30.0),
        ("30000000", "7", 30.0),
        ("30000000", "8", None),
        ("0", "7", None),
        ("", "7", None),
        ("soon", "7", None),
        ("-1", "", None),
        ("9" * 400, "", None),
        ("9" * 5000, "", None),
    ],
)
def test_a_watchdog_counts_where_it_is_meant_for_this_process(usec: str, pid: str, expected: float | None) -> None:
    assert watchdog_s(usec, pid, 7) == expected


def test_the_variables_are_taken_out_of_the_environment_that_children_get() -> None:
    environ = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "7", "PATH": "/bin"}

    assert take_variables(environ, 7) == ServiceVariables(b"/run/n", 2.0)
    assert environ == {"PATH": "/bin"}


# -- what is sent


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_is_one_datagram_of_lines(tmp_path: Path, abstract: bool) -> None:
    name = f"@modelport-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with _manager(name) as manager:
        notify = NotifySocket(address(name))
        with contextlib.closing(notify):
            notify.send("READY=1", "STATUS=1 of 1 engine ready")

        assert manager.next() == ["READY=1", "STATUS=1 of 1 engine ready"]


def test_nothing_is_sent_and_nothing_fails_without_a_manager(tmp_path: Path) -> None:
    nobody = NotifySocket(None)
    gone = NotifySocket(address(str(tmp_path / "nobody")))

    nobody.send("READY=1")
    gone.send("READY=1")

    assert (nobody.is_heard, gone.is_heard) == (False, True)
    gone.close()
    gone.send("READY=1")
    assert not gone.is_heard


def test_a_manager_that_does_not_read_gets_it_later_and_in_order(manager: Manager) -> None:
    notify = NotifySocket(address(manager.name))
    count = 0
    with contextlib.closing(notify):
        while count < 10_000 and "waiting=0" in repr(notify):
            notify.send(f"STATUS={count}")
            count += 1
        assert "waiting=1>" in repr(notify)
        notify.send("READY=1")

        for number in range(count - 1):
            assert manager.next() == [f"STATUS={number}"]
        notify.flush()

        assert manager.next() == [f"STATUS={count - 1}"]
        assert manager.next() == ["READY=1"]


def test_of_what_a_manager_never_reads_only_so_much_is_kept(manager: Manager) -> None:
    notify = NotifySocket(address(manager.name))
    with contextlib.closing(notify):
        for number in range(10_000):
            notify.send(f"STATUS={number}")

        assert f"waiting={MOST_WAITING}>" in repr(notify)


# -- what the gateway says of itself


def test_the_status_is_one_line_that_names_what_is_not_ready_the_worst_first() -> None:
    states = {"a": State.READY, "b": State.STARTING, "c": State.FAILED, "d": State.READY, "e": State.STOPPED}

    assert status_line([]) == "0 of 0 engines ready"
    assert status_line([_status("a", State.READY)]) == "1 of 1 engine ready"
    assert status_line([_status(*each) for each in states.items()]) == (
        "2 of 5 engines ready, failed: c, starting: b, stopped: e"
    )
    assert status_line([_status(name, State.SLEEPING) for name in "abcde"]) == (
        "0 of 5 engines ready, sleeping: a b c and 2 more"
    )


def test_a_stop_takes_at_most_what_requests_relays_and_the_slowest_engine_may_take() -> None:
    engines = {"a": 10, "b": 25}
    config = Config.model_validate(
        {
            "server": {"drain_s": 60},
            "backends": {
                "far": {"kind": "remote", "url": "http://127.0.0.1:9/v1"},
                **{
                    name: {"kind": "llama_cpp", "model": "m.gguf", "stop_grace_s": grace}
                    for name, grace in engines.items()
                },
            },
        }
    )

    assert longest_stop_s(config, relay_grace_s=3, linger_s=5) == 5 + 60 + 3 + 25 + MARGIN_S
    assert longest_stop_s(Config(), relay_grace_s=3, linger_s=0.5) == 0.5 + 30 + 3 + MARGIN_S


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def _next(manager: Manager) -> list[str]:
    return await asyncio.to_thread(manager.next)


@contextlib.asynccontextmanager
async def _reporting(reports: ServiceReports, serving: Sequence[bool], statuses: Sequence[str]) -> AsyncIterator[None]:
    answers = iter([*serving])
    task = asyncio.create_task(reports.run(lambda: next(answers, True), lambda: statuses[-1]))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        reports.close()


async def test_it_is_ready_once_the_relays_serve_and_says_what_has_changed_since(manager: Manager) -> None:
    statuses = ["0 of 1 engine ready"]
    reports = ServiceReports(ServiceVariables(address(manager.name)))
    async with _reporting(reports, [False, False], statuses):
        first, second = await _next(manager), await _next(manager)
        statuses.append("1 of 1 engine ready")
        third = await _next(manager)

    assert first == ["STATUS=starting"]
    assert second == ["READY=1", "STATUS=0 of 1 engine ready"]
    assert third == ["STATUS=1 of 1 engine ready"]


async def test_signs_of_life_come_before_half_of_the_time_is_over(manager: Manager) -> None:
    clock = Clock()
    reports = ServiceReports(ServiceVariables(address(manager.name), 0.4), clock)
    async with _reporting(reports, [], ["1 of 1 engine ready"]):
        first = await _next(manager)
        seen = []
        for _ in range(3):
            clock.now += 0.11  # one look later
            seen.append(await _next(manager))

    assert first == ["READY=1", "WATCHDOG=1", "STATUS=1 of 1 engine ready"]
    assert seen == [["WATCHDOG=1"]] * 3


async def test_a_reload_has_a_begin_with_its_time_and_an_end_even_if_it_fails(manager: Manager) -> None:
    reports = ServiceReports(ServiceVariables(address(manager.name)), Clock())
    with contextlib.suppress(ValueError):
        async with reports.reloading():
            assert manager.next() == ["RELOADING=1", "MONOTONIC_USEC=100000000"]
            raise ValueError

    assert manager.next() == ["READY=1"]
    reports.close()


async def test_whoever_ends_is_not_ready_again(manager: Manager) -> None:
    reports = ServiceReports(ServiceVariables(address(manager.name)))
    reports.stopping(43.5)
    async with reports.reloading():
        pass
    reports.close()

    assert manager.next() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=43500000"]
    assert manager.has_nothing(0.0)


# -- the whole program


def test_the_program_says_that_it_serves_reloads_and_ends_and_no_process_of_its_inherits_the_socket(
    tmp_path: Path, manager: Manager
) -> None:
    told = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "3000000"}
    with running(tmp_path, env=told) as gateway:
        manager.until("READY=1")
        answer = httpx.get(f"{gateway.url}/livez", timeout=PATIENCE_S)
        manager.until("STATUS=1 of 1 engine ready")
        status = gateway.status()
        family = [*status["relays"]["pids"], *(each["pid"] for each in status["health"]["backends"])]
        inherited = [pid for pid in family if b"NOTIFY_SOCKET" in Path(f"/proc/{pid}/environ").read_bytes()]
        gateway.process.send_signal(signal.SIGHUP)
        began = manager.next()
        while "RELOADING=1" not in began:
            began = manager.next()
        manager.until("READY=1")
        manager.until("WATCHDOG=1")
        code = gateway.end()
        ending = manager.until("STOPPING=1")

    assert answer.status_code == 200
    assert began[1].startswith("MONOTONIC_USEC=")
    assert ending[1].startswith("EXTEND_TIMEOUT_USEC=")
    assert (code, inherited, len(family)) == (0, [], 2)


def test_a_loop_that_stands_still_gives_no_sign_of_life(tmp_path: Path, manager: Manager) -> None:
    told = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "1000000"}
    with running(tmp_path, start="demand", env=told) as gateway:
        manager.until("READY=1")
        manager.until("WATCHDOG=1")
        gateway.process.send_signal(signal.SIGSTOP)
        stopped = Path(f"/proc/{gateway.process.pid}/stat")
        until(lambda: stopped.read_text().rpartition(")")[2].split()[0] == "T")
        while not manager.has_nothing(0.0):  # what it had sent before
            manager.next()

        assert manager.has_nothing(1.5)

        gateway.process.send_signal(signal.SIGCONT)
        manager.until("WATCHDOG=1")
