"""The gateway as one object: its parts, the table of this moment, and what an administrator may ask and order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

import structlog

from app import __version__
from app.config import cross_checks
from app.config.load import load_all
from app.config.model import Config
from app.config.settings import ServeOptions
from app.config.yaml_document import ConfigError
from app.errors import Problem
from app.supervisor import console, fixed_settings, listener, open_files, terminal
from app.supervisor.admin import schemas as admin_schemas
from app.supervisor.admin import views
from app.supervisor.admin.capabilities import CapabilityStore
from app.supervisor.admin.metrics import Life, RelayCounters, Scrape
from app.supervisor.admin.prober import Prober
from app.supervisor.admin.schemas import (
    AdapterAnswer,
    AdaptersAnswer,
    BackendAnswer,
    Health,
    Logs,
    Models,
    PlanAnswer,
    ProbesAnswer,
    QuarantineAnswer,
    RelayProcesses,
    Reloaded,
    Status,
)
from app.supervisor.capacity import devices
from app.supervisor.capacity import report as capacity_report
from app.supervisor.capacity.gpu_quarantine import GpuQuarantine
from app.supervisor.capacity.measurements import MeasurementStore
from app.supervisor.capacity.schedule import Capacity
from app.supervisor.capacity.sizes import Sizes
from app.supervisor.fleet.fleet import BackendStatus, Fleet
from app.supervisor.relays import build_table
from app.supervisor.relays import processes as relays_processes
from app.supervisor.relays.leases import Leases
from app.supervisor.relays.processes import Relays
from app.supervisor.relays.server import RelayServer
from app.supervisor.replicas import replicas
from app.supervisor.replicas.discovery import Discovery
from app.supervisor.state_disk import StateDisk
from app.supervisor.state_folder import StateFolder
from app.table import Backend, Table
from backends import kinds
from backends.errors import BackendError

log = structlog.get_logger()


class Gateway:
    """Owns the configuration in force and the table's version; everything else is owned by the parts."""

    def __init__(
        self,
        options: ServeOptions,
        config: Config,
        state: StateFolder,
        public: socket.socket,
        discovery: Discovery | None = None,
    ) -> None:
        self.config = config
        self.is_draining = False
        self._options = options
        self._state = state
        self._url = listener.url(public)
        self._bound: str = public.getsockname()[0]
        self._is_loopback = cross_checks.is_loopback(self._bound)
        self._unasked = (
            frozenset() if options.config_path is not None else frozenset(config.backends) - self._promised()
        )
        self._began, self._created = time.monotonic(), int(time.time())
        self._most_connections = open_files.connections(open_files.limit())
        self._version = 0
        self._backends: Mapping[str, Backend] = {}
        self._seen: dict[str, console.ReportedState] | None = None
        self._reloading = asyncio.Lock()
        self._named: set[str] = set()  # adapters that are being loaded or unloaded
        self._discovery = discovery or Discovery()
        self._discovery.follow(config.backends)
        self.leases = Leases()
        counters = RelayCounters()
        self.relays = Relays(
            public.fileno(),
            counters,
            relays_processes.environment(options.env, options.log_format, options.log_level),
            lambda index, counters: relays_processes.argv(public.fileno(), state.path, index, counters),
            state.check,
        )
        self.hub = RelayServer(self.leases, self.relays)
        self._measurements = MeasurementStore(state.measurements)
        self._sizes = Sizes(self._measurements)
        self._capabilities = CapabilityStore(state.capabilities)
        self.disk = StateDisk(state.path, (self._measurements.file, self._capabilities.file))
        self._devices: Sequence[str] = ()
        self.fleet = Fleet(
            config.backends,
            state_id=state.id,
            publish=self.publish,
            leases=self.leases,
            drain_s=config.server.drain_s,
            now=time.monotonic,
            random=random.random,
            unasked=self._unasked,
            capacity=self._capacity(config),
            wait_s=config.server.wait_s,
            sizes=self._sizes,
            quarantine=GpuQuarantine(devices.nvml),
            engine=functools.partial(kinds.engine, drain_s=config.server.drain_s, pins=state.pins, caches=state.caches),
        )
        self._prober = Prober(self._capabilities, self.fleet.wanted, lambda: self._backends, self.publish_again)
        self._scrape = Scrape(counters, self._lives, __version__, self._quarantines, lambda: self.disk.trouble)
        self._tell_bound()

    def __repr__(self) -> str:
        return f"<Gateway {self._url} table={self._version} draining={self.is_draining}>"

    def _capacity(self, config: Config) -> Capacity:
        """What there is to share, as it is now; and from now on these engines are known by their sizes."""
        server = config.server
        found = devices.machine(server.memory_gb, self._options.env)
        self._sizes.look(replicas.expand(config.backends), found)
        self._capabilities.look(config.backends)
        self._devices = [gpu.uuid for gpu in found.gpus]
        return Capacity(found, server.start_parallel, server.swap_after_s)

    # -- the table

    def publish(self, backends: Mapping[str, Backend]) -> int:
        """Tell the relays of these situations; the version of the table that says so."""
        self._backends = dict(backends)
        return self.publish_again()

    def publish_again(self) -> int:
        """Tell the relays of the configuration as it is now."""
        self._version += 1
        table = self._table()
        self.hub.publish(table)
        if self._seen is not None:
            self._seen, lines = console.progress(self._seen, self._backends, self._promised(), time.monotonic())
            terminal.say(*lines)
        return self._version

    def _table(self) -> Table:
        return build_table.build(
            self.config.model_copy(update={"backends": self._discovery.applied(self.config.backends)}),
            self._capabilities.applied(self._backends),
            self._version,
            self.is_draining,
            self._created,
            is_loopback=self._is_loopback,
            max_connections=self._most_connections,
        )

    # -- the terminal

    def announce(self) -> None:
        """The banner now, and from now on how the engines get on."""
        text = console.banner(
            self._table(),
            version=__version__,
            url=self._url,
            is_loopback=self._is_loopback,
            chat_model=self._chat_model(),
            implicit=self._unasked,
        )
        terminal.say(text)
        self._seen, lines = console.progress({}, self._backends, self._promised(), time.monotonic())
        terminal.say(*lines)

    def _promised(self) -> frozenset[str]:
        return frozenset(
            target.backend
            for name, model in self.config.models.items()
            if not name.endswith("*")
            for target in model.all_targets()
        )

    def _chat_model(self) -> str | None:
        for name, model in self.config.models.items():
            targets = [self.config.backends[target.backend] for target in model.all_targets()]
            if not name.endswith("*") and any(
                getattr(backend, "task", "generate") == "generate" for backend in targets
            ):
                return name
        return None

    # -- what an administrator asks (app.supervisor.admin.Control)

    def health(self) -> Health:
        """How everything is."""
        table = self._table()
        return Health(
            status=views.overall(table, self.disk.trouble, self.fleet.status()),
            version=__version__,
            uptime_s=round(time.monotonic() - self._began, 3),
            models=views.models(table, self.fleet.status()),
            backends=tuple(BackendAnswer.of(status) for status in self._shown()),
            quarantined=tuple(
                QuarantineAnswer(device=each.device, backend=each.backend, reason=each.reason)
                for each in self.fleet.quarantined
            ),
            state_folder=self.disk.trouble,
        )

    def models(self) -> Models:
        """The public names."""
        table = self._table()
        return Models(
            models=views.models(table, self.fleet.status()),
            wildcards=tuple(f"{wildcard.prefix}*" for wildcard in table.wildcards),
        )

    def status(self) -> Status:
        """Everything at a glance."""
        path = self._options.config_path
        return Status(
            health=self.health(),
            pid=os.getpid(),
            address=self._url,
            config=str(path.absolute()) if path is not None else None,
            state_folder=str(self._state.path),
            table_version=self._version,
            leases=self.leases.total(),
            relays=RelayProcesses(
                pids=self.relays.pids, connected=tuple(sorted(self.hub.pids)), restarts=self.relays.restarts
            ),
        )

    async def plan(self) -> PlanAnswer:
        """Everything configured on this machine, with what was measured."""
        config, barred = self.config, {each.device: each.reason for each in self.fleet.quarantined}
        machine = await asyncio.to_thread(devices.machine, config.server.memory_gb, self._options.env)
        running = {
            status.name: status.footprint.resident_gb or 0.0 if status.footprint is not None else 0.0
            for status in self.fleet.status()
            if status.pid is not None
        }
        return await asyncio.to_thread(capacity_report.plan, config, machine, self._measurements, barred, running)

    async def metrics(self) -> bytes:
        """Prometheus's page."""
        return await self._scrape.render()

    def logs(self, backend: str, lines: int, life: int | None = None) -> Logs:
        """The last lines that a life of its process wrote. KeyError: no such backend."""
        return admin_schemas.logs(backend, lines, life, self.fleet.log(backend, life), time.monotonic())

    # -- what an administrator orders

    async def start(self, backend: str) -> BackendAnswer:
        """Start it; failures before are forgiven."""
        self._check_open()
        await self.fleet.start(backend)
        return self._one(backend)

    async def stop(self, backend: str) -> BackendAnswer:
        """End it once its leases are returned."""
        self._check_open()
        await self.fleet.stop(backend)
        return self._one(backend)

    async def restart(self, backend: str) -> BackendAnswer:
        """End it as `stop` does, then start it."""
        self._check_open()
        await self.fleet.restart(backend)
        return self._one(backend)

    def adapters(self, backend: str) -> AdaptersAnswer:
        """Those it is to have."""
        found = self.fleet.adapters(backend)
        told = tuple(AdapterAnswer(name=each.name, path=each.path, reason=each.reason) for each in found)
        return AdaptersAnswer(backend=backend, adapters=told)

    async def load_adapter(self, backend: str, name: str, path: str) -> AdaptersAnswer:
        """Serve an adapter under that public name."""
        self._check_open()
        taken = self._table().models.get(name)
        is_its_own = any(each.name == name for each in self.fleet.adapters(backend))
        if cross_checks.canonical(self.config, name) is not None or (taken is not None and not is_its_own):
            raise Problem(409, "name_taken", f"{name!r} is already the name of a model here.", param="name")
        with self._naming(name):
            try:
                await self.fleet.load_adapter(backend, name, path)
            except BackendError as exc:
                raise Problem(422, "adapter_refused", f"{exc.engine}: {exc.message}") from exc
        return self.adapters(backend)

    @contextlib.contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """One order at a time for each name, whatever the backend."""
        if name in self._named:
            raise Problem(409, "name_taken", f"{name!r} is being loaded or unloaded just now.", param="name")
        self._named.add(name)
        try:
            yield
        finally:
            self._named.discard(name)

    async def unload_adapter(self, backend: str, name: str) -> AdaptersAnswer:
        """Serve an adapter no longer."""
        self._check_open()
        if all(each.name != name for each in self.fleet.adapters(backend)):
            raise Problem(404, "adapter_not_found", f"{backend!r} has no adapter {name!r}.", param="adapter")
        with self._naming(name):
            await self.fleet.unload_adapter(backend, name)
        return self.adapters(backend)

    async def probe(self, model: str, capabilities: Collection[str], *, again: bool) -> ProbesAnswer:
        """Test what it can do."""
        self._check_open()
        return await self._prober.probe(self._table(), model, capabilities, again=again)

    async def reload(self) -> Reloaded:
        """Read the configuration again. ConfigError for a bad one, which changes nothing."""
        async with self._reloading:
            self._check_open()
            try:
                config = await asyncio.to_thread(load_all, self._options, self._bound)
            except ConfigError as exc:
                log.error("configuration refused; nothing has changed", errors=exc.errors)
                raise
            changed = fixed_settings.needs_restart(self.config, config)
            capacity = await asyncio.to_thread(self._capacity, config)
            before, self.config = self.config, fixed_settings.as_started(self.config, config)
            self.fleet.drain_s, self.fleet.wait_s = config.server.drain_s, config.server.wait_s
            self.fleet.share(capacity)
            self._discovery.follow(config.backends)
            try:
                await self.fleet.reload(self._discovery.applied(config.backends))
            except BaseException:
                self.config = before
                self._discovery.follow(before.backends)
                raise
            version = self.publish_again()
            self._tell_bound()
            pending = self.fleet.pending()
            log.info("configuration reloaded", table=version, needs_restart=changed, pending=pending)
            return Reloaded(table_version=version, needs_restart=changed, pending=pending)

    async def follow_names(self) -> None:
        """Let the engines be those that their names lead to, until it is cancelled."""
        await self._discovery.run(self._names_changed)

    async def _names_changed(self) -> None:
        async with self._reloading:
            if not self.is_draining:
                await self.fleet.reload(self._discovery.applied(self.config.backends), is_wished=False)
                self.publish_again()

    def _check_open(self) -> None:
        if self.is_draining:
            raise Problem(503, "shutting_down", "The gateway is shutting down and takes no more orders.")

    # -- from the fleet's words to ours

    def _one(self, backend: str) -> BackendAnswer:
        return next(BackendAnswer.of(status) for status in self.fleet.status() if status.name == backend)

    def _lives(self) -> list[Life]:
        return [
            Life(status.name, status.state, status.restarts, status.swaps, status.waiting) for status in self._shown()
        ]

    def _quarantines(self) -> dict[str, bool]:
        quarantined = {each.device for each in self.fleet.quarantined}
        return {device: device in quarantined for device in (*self._devices, *sorted(quarantined - {*self._devices}))}

    def _shown(self) -> list[BackendStatus]:
        """Less what nobody asked for and that has never answered: it is only looked for."""
        return [status for status in self.fleet.status() if status.generation or status.name not in self._unasked]

    def _tell_bound(self) -> None:
        wished, possible = self.config.server.max_connections, self._most_connections
        if possible is not None and possible < wished:
            log.warning(
                "max_connections lowered: more files may not be open (ulimit -n)", configured=wished, now=possible
            )
