"""`modelport serve`: the supervisor process. It owns the engines, the configuration, the state folder, the sockets."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from typing import TextIO

import structlog

import app.log
from app import __version__
from app.config.load import load_all
from app.config.model import Config
from app.config.settings import ServeOptions
from app.config.yaml_document import ConfigError
from app.errors import Problem
from app.store.schema import TooNew
from app.store.tables.audit_entry import AuditEntry, new_id
from app.store.tables.keys import holds_keys
from app.supervisor import listener, open_files
from app.supervisor.admin.app import AdminServer, create_admin
from app.supervisor.capacity import devices, report
from app.supervisor.gateway import Gateway
from app.supervisor.listener import Sockets
from app.supervisor.service_manager.notify_socket import take_variables
from app.supervisor.service_manager.service_reports import ServiceReports, longest_stop_s, status_line
from app.supervisor.state_folder import StateError, StateFolder, bind_private
from backends.process import process
from backends.process.cores import usable_cores

log = structlog.get_logger()

# One Ctrl-C may arrive as several signals: from the terminal or the service manager, and from `make`.
SAME_SIGNAL_S = 1.0
# How long a relay may take beyond the time that its requests have.
RELAY_GRACE_S = 3.0
# And the store, after a second signal.
AT_ONCE_S = 1.0


def serve(options: ServeOptions) -> int:
    """Run the gateway until a signal ends it. Returns the exit code; prints on standard error why it does not start."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_early)
    signals = Signals(is_attended=_is_terminal(sys.stdin) or _is_terminal(sys.stdout))
    signals.remember()
    app.log.set_up(options.log_format, options.log_level)
    service = ServiceReports(take_variables(os.environ, os.getpid()))
    try:
        config = load_all(options, has_stored_keys=holds_keys(StateFolder(options.state).store))
        open_files.raise_limit()
        server = config.server
        with (
            StateFolder(options.state) as state,
            listener.opened(server) as sockets,
        ):
            state.sweep()
            return asyncio.run(_run(options, config, state, sockets, service, signals))
    except ConfigError as exc:
        print(*exc.errors, sep="\n", file=sys.stderr)
        return 2
    except (StateError, listener.ListenError, TooNew) as exc:
        print(f"modelport: {exc}", file=sys.stderr)
        return 1
    except _EndedEarly:
        return 0
    except Exception:
        log.exception("the gateway ends")
        return 1


class _EndedEarly(BaseException):
    """A signal to end came before the event loop listens to signals: there is nothing yet to end in order."""


def _end_early(_number: int, _frame: object) -> None:
    raise _EndedEarly


async def _run(
    options: ServeOptions,
    config: Config,
    state: StateFolder,
    sockets: Sockets,
    service: ServiceReports,
    signals: Signals,
) -> int:
    process.adopt_orphans()
    if count := await process.sweep(state.id):
        log.warning("processes of an earlier supervisor ended", count=count)
    gateway = Gateway(options, config, state, sockets.public)
    gateway.while_reloading = service.reloading
    signals.listen(gateway)
    try:
        return await _live(options, gateway, signals, state, sockets, service)
    finally:
        if signals.at_once.is_set():
            log.warning("ended at once: a second signal came")
        # Whatever happened above, no relay is left behind.
        gateway.relays.kill()
        await gateway.relays.close(0)
        await gateway.relay_server.close()
        await gateway.ejections.aclose()
        await _sign_off(gateway, signals)


async def _sign_off(gateway: Gateway, signals: Signals) -> None:
    """Tell the team's store what is left; after a second signal only as far as that takes a moment."""
    if not signals.at_once.is_set():
        await _end(gateway.team.aclose(), signals)
    else:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AT_ONCE_S):
                await gateway.team.aclose()


def _is_terminal(stream: TextIO | None) -> bool:
    # None or closed: we were started without it.
    return stream is not None and not stream.closed and stream.isatty()


async def _live(
    options: ServeOptions,
    gateway: Gateway,
    signals: Signals,
    state: StateFolder,
    sockets: Sockets,
    service: ServiceReports,
) -> int:
    await gateway.team.open()
    await gateway.relay_server.open(state.relay_socket, gateway.fleet)
    server = gateway.config.server
    admin = AdminServer(create_admin(gateway, __version__, docs=server.docs, root_path=server.root_path))
    tasks = {
        "fleet": asyncio.create_task(gateway.fleet.run(), name="fleet"),
        "team": asyncio.create_task(gateway.team.run(), name="team"),
        "admin": asyncio.create_task(admin.serve([bind_private(state.control_socket)]), name="admin"),
    }
    gateway.publish_again()
    gateway.relays.start(await _number_of_relays(gateway.config, options))
    tasks["names"] = asyncio.create_task(gateway.follow_names(), name="names")
    tasks["disk"] = asyncio.create_task(gateway.disk.run(), name="disk")
    tasks["provenance"] = asyncio.create_task(gateway.provenance.run(), name="provenance")
    tasks["metrics"] = asyncio.create_task(gateway.metrics.run(sockets.metrics), name="metrics")
    tasks["service"] = asyncio.create_task(_told(gateway, service), name="service")
    tasks["relays"] = asyncio.create_task(gateway.relays.failed(), name="relays")
    stopping = asyncio.create_task(signals.stop.wait(), name="stop")
    try:
        await asyncio.sleep(0)  # lets the fleet begin, so that the banner shows what starts
        gateway.announce()
        await asyncio.wait({stopping, *tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        server = gateway.config.server
        delay_s = server.drain_delay_s if signals.is_patient else 0.0
        service.stopping(longest_stop_s(gateway.config, RELAY_GRACE_S, delay_s))
        ended = [task for task in tasks.values() if task.done()]
        if ended:
            _log_failure(ended[0])
            await _end(_drain(gateway, sockets.public, 0.0), signals)
            return 1
        log.info(
            "draining; a second signal ends it at once",
            delay_s=delay_s,
            seconds=server.drain_s,
            leases=gateway.leases.total(),
        )
        await _end(_drain(gateway, sockets.public, server.drain_s, delay_s), signals)
        await _end(gateway.fleet.close(0.0), signals)
        return int(signals.at_once.is_set())
    finally:
        admin.should_exit = True
        stopping.cancel()
        for name in ("fleet", "names", "disk", "provenance", "metrics", "service", "relays", "team"):
            tasks[name].cancel()
        await asyncio.gather(stopping, *tasks.values(), return_exceptions=True)


async def _number_of_relays(config: Config, options: ServeOptions) -> int:
    """As many as are set; for `auto` by the cores of this machine that engines leave."""
    if config.server.relays != "auto":
        return config.server.relays
    machine = await asyncio.to_thread(devices.machine, config.server.memory_gb, options.env)
    chosen = report.relays(config, machine, usable_cores())
    log.info("relays by cores", relays=chosen.count, cores=chosen.cores, engine_cores=chosen.engine_cores)
    return chosen.count


async def _told(gateway: Gateway, service: ServiceReports) -> None:
    """Tell the service manager how the gateway is. It is ready once all relays route by a table."""

    def serves() -> bool:
        return len(gateway.relay_server.pids) >= max(1, gateway.relays.wanted) and gateway.leases.is_applied(1)

    def status() -> str:
        if not gateway.is_draining:
            return status_line(gateway.visible())
        requests = gateway.leases.total()
        return f"ending, {requests} request{'' if requests == 1 else 's'} to finish" if requests else "ending"

    await service.run(serves, status)


def _log_failure(task: asyncio.Task[None]) -> None:
    cause = _cause(task)
    if isinstance(cause, StateError):
        log.critical("the gateway ends", reason=str(cause))
    else:
        log.critical("the gateway ends: a part of it failed", part=task.get_name(), exc_info=cause)


def _cause(task: asyncio.Task[None]) -> BaseException:
    return (None if task.cancelled() else task.exception()) or RuntimeError(f"{task.get_name()} ended unasked")


async def _end(work: Coroutine[None, None, None], signals: Signals) -> None:
    """Do this last work; a second signal cancels it."""
    working = asyncio.create_task(work)
    at_once = asyncio.create_task(signals.at_once.wait())
    try:
        await asyncio.wait({working, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        at_once.cancel()
        await asyncio.gather(working, at_once, return_exceptions=True)


async def _drain(gateway: Gateway, public: socket.socket, drain_s: float, delay_s: float = 0.0) -> None:
    """Stop serving: not ready at once, no new connections after `delay_s`, then requests end, and relays with them.

    Until the delay is over everything else is as before, for those who have not heard of it yet. Engines are idle when
    this returns.
    """
    gateway.is_draining = True
    gateway.publish_again()
    await asyncio.sleep(delay_s)
    gateway.fleet.stop_waiting()
    listener.take_no_more(public)
    gateway.relay_server.drain(drain_s)
    public.close()
    await gateway.relays.close(drain_s + RELAY_GRACE_S)


class Signals:
    """What the signals ask for. `is_attended`: there is a terminal, so SIGHUP means that it was closed, not a reload.

    `stop`: end in order; `at_once`: end without waiting, set by a second signal. `is_patient`: it was a SIGTERM that
    came first, as from a service manager, and not somebody at a terminal who waits for it.
    """

    def __init__(self, is_attended: bool) -> None:
        self._is_attended = is_attended
        self._reloads: set[asyncio.Task[None]] = set()
        self._has_early = False
        self.stop = asyncio.Event()
        self.at_once = asyncio.Event()
        self.is_patient = False
        self._stopped_at = math.inf
        self._terminal: select.epoll

    def remember(self) -> None:
        """Until the gateway listens to signals, remember a SIGHUP that means a reload: by default it ends a process."""

        def heard(_number: int, _frame: object) -> None:
            self._has_early = True

        if not self._is_attended:
            signal.signal(signal.SIGHUP, heard)

    def listen(self, gateway: Gateway) -> None:
        """Install the handlers."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        if not self._is_attended:
            loop.add_signal_handler(signal.SIGHUP, self._reload, gateway)
            if self._has_early:
                self._reload(gateway)
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else started by nohup, to outlive its terminal
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)
            self._watch_terminal(loop)

    def _watch_terminal(self, loop: asyncio.AbstractEventLoop) -> None:
        """Notice the end of the terminal itself (Linux): where `make` leads the session, no SIGHUP reaches us."""
        terminal = next((stream for stream in (sys.stdin, sys.stdout) if _is_terminal(stream)), None)
        if terminal is None or sys.platform != "linux":
            return
        # An epoll without events reports hang-ups only; a reader of the terminal would wake for every key.
        self._terminal = select.epoll()
        self._terminal.register(terminal.fileno(), 0)

        def on_hang_up() -> None:
            loop.remove_reader(self._terminal.fileno())
            self._hung_up()

        loop.add_reader(self._terminal.fileno(), on_hang_up)

    def _hung_up(self) -> None:
        if not self.stop.is_set():  # the signal and the terminal both report it: not a second request to end
            self._end(signal.SIGHUP)

    def _end(self, number: signal.Signals) -> None:
        now = time.monotonic()  # the loop's own clock may be a turn late
        if not self.stop.is_set():
            self._stopped_at = now
            self.is_patient = number is signal.SIGTERM
            self.stop.set()
        elif now - self._stopped_at >= SAME_SIGNAL_S:
            self.at_once.set()

    def _reload(self, gateway: Gateway) -> None:
        task = asyncio.create_task(_reload(gateway), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)


async def _reload(gateway: Gateway) -> None:
    status = 200
    try:
        await gateway.reload()
    except ConfigError:
        status = 422  # logged already, and nothing has changed
    except Problem as exc:
        status = exc.status
        log.warning("not reloaded", reason=exc.message)
    except Exception:
        status = 500
        log.exception("reload failed")
    await gateway.team.audit.record(AuditEntry(new_id(), time.time(), "SIGHUP", "signal", "reload", status=status))
