"""The gateway as one object: its parts, the current table, and what an administrator may ask for and order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from app import __version__
from app.certificate.certificate import Certificate
from app.certificate.observation import Observation, Questions
from app.config import cross_checks
from app.config.load import load_all
from app.config.model import Config
from app.config.settings import ServeOptions
from app.config.yaml_document import ConfigError
from app.errors import Problem
from app.supervisor import console, fixed_settings, listener, open_files, terminal
from app.supervisor.admin import views
from app.supervisor.admin.adapter_orders import AdapterOrders
from app.supervisor.admin.capabilities import CapabilityStore
from app.supervisor.admin.certificates import CertificateStore, public_name
from app.supervisor.admin.observer import Observer
from app.supervisor.admin.plan_schemas import PlanAnswer
from app.supervisor.admin.prober import Prober
from app.supervisor.admin.schemas import (
    AdapterOrder,
    AdaptersAnswer,
    BackendAnswer,
    Health,
    Logs,
    Models,
    ProbesAnswer,
    QuarantineAnswer,
    RelayProcesses,
    Reloaded,
    Status,
)
from app.supervisor.capacity import devices, report
from app.supervisor.capacity.gpu_quarantine import GpuQuarantine
from app.supervisor.capacity.measurements import MeasurementStore
from app.supervisor.capacity.schedule import Capacity
from app.supervisor.capacity.sizes import Sizes
from app.supervisor.ejection.ejections import Ejections
from app.supervisor.fleet.fleet import Fleet
from app.supervisor.fleet.status import BackendStatus
from app.supervisor.metrics import snapshot
from app.supervisor.metrics.engines.engine_scrape import EngineSource, EnginesPage
from app.supervisor.metrics.page import MetricsPage
from app.supervisor.metrics.pages import MetricsPages
from app.supervisor.metrics.relay_counters import RelayCounters
from app.supervisor.metrics.snapshot import GatewaySnapshot
from app.supervisor.provenance.provenance import Provenance
from app.supervisor.relays import build_table, processes
from app.supervisor.relays.leases import Leases
from app.supervisor.relays.processes import Relays
from app.supervisor.relays.server import RelayServer
from app.supervisor.replicas import replicas
from app.supervisor.replicas.discovery import Discovery
from app.supervisor.state_disk import StateDisk
from app.supervisor.state_folder import StateFolder
from app.supervisor.team.team import Team
from app.table import Backend, Table
from backends import kinds

log = structlog.get_logger()


class Gateway:
    """Owns the configuration in force and the version of the table; everything else is owned by its parts.

    Its public methods are the AdminApi. `public`: the listening socket, already bound.
    """

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
        self._implicit = console.implicit(config) if options.is_implicit else frozenset()
        self._started_at, self._created = time.monotonic(), int(time.time())
        self._max_connections = open_files.connections(open_files.limit())
        self._version, self._digest = 0, views.ConfigDigest()
        self._backends: Mapping[str, Backend] = {}
        self._reported: dict[str, console.ReportedState] | None = None
        self._reloading = asyncio.Lock()
        self._discovery = discovery or Discovery()
        self._discovery.follow(config.backends)
        self.while_reloading: Callable[[], contextlib.AbstractAsyncContextManager[None]] = contextlib.nullcontext
        self.leases = Leases()
        counters = RelayCounters()
        self.relays = Relays(
            public.fileno(),
            counters,
            processes.environment(options.env, options.log_format, options.log_level),
            lambda index, counters: processes.argv(public.fileno(), state.path, index, counters),
            state.check,
        )
        self.ejections = Ejections(
            lambda: self._backends,
            self.publish_again,
            is_on=lambda: self.config.server.eject_after > 0,
            is_full=lambda backend: self.fleet.is_full(backend),
        )
        self.team = Team(config, state, self.publish_again, may_be_open=self._is_loopback or options.insecure_no_key)
        self.relay_server = RelayServer(
            self.leases, self.relays, suspect=self.ejections.suspect, limits=self.team.allowances
        )
        self._measurements = MeasurementStore(state.measurements)
        self._sizes = Sizes(self._measurements)
        self._capabilities = CapabilityStore(state.capabilities)
        self._certificates = CertificateStore(state.certificates, self._url)
        self.provenance = Provenance(state.digests, lambda: self.fleet.started(), self.publish_again)
        stores = (self._measurements, self._capabilities, self._certificates, self.provenance)
        self.disk = StateDisk(state.path, [*(store.file for store in stores), *self.team.files])
        self._devices: Sequence[str] = ()
        self.fleet = self._new_fleet(config)
        self._adapter_orders = AdapterOrders(lambda: self.fleet, lambda: self.config, self._table)
        self._prober = Prober(self._capabilities, self.fleet.wanted, lambda: self._backends, self.publish_again)
        self._observer = Observer(self._certificates, self.fleet.wanted, lambda: self._backends)
        engines = EnginesPage(lambda: [EngineSource(*each) for each in self.fleet.engine_metrics()])
        self.metrics = MetricsPages(MetricsPage(counters, self._snapshot, __version__), engines)
        self.votes, self.runs = self.team.votes, self.team.runs
        open_files.warn_of_few(config.server.max_connections, self._max_connections)

    def __repr__(self) -> str:
        return f"<Gateway {self._url} table={self._version} draining={self.is_draining}>"

    def _new_fleet(self, config: Config) -> Fleet:
        state = self._state
        return Fleet(
            config.backends,
            state_id=state.id,
            publish=self.publish,
            leases=self.leases,
            drain_s=config.server.drain_s,
            now=time.monotonic,
            random=random.random,
            implicit=self._implicit,
            capacity=self._capacity(config),
            wait_s=config.server.wait_s,
            sizes=self._sizes,
            quarantine=GpuQuarantine(devices.nvml),
            engine=functools.partial(kinds.engine, drain_s=config.server.drain_s, pins=state.pins, caches=state.caches),
        )

    def _capacity(self, config: Config) -> Capacity:
        """What engines have to share, as the machine is now. Blocks: it also looks at the files of these engines."""
        server = config.server
        machine = devices.machine(server.memory_gb, self._options.env)
        self._sizes.refresh(replicas.expand(config.backends), machine)
        self._capabilities.refresh(config.backends)
        self._certificates.refresh(config.backends)
        self._devices = [gpu.uuid for gpu in machine.gpus]
        return Capacity(machine, server.start_parallel, server.swap_after_s)

    # -- the table

    def publish(self, backends: Mapping[str, Backend]) -> int:
        """Send the relays a table with these backends. Returns the version of that table."""
        self._backends = dict(backends)
        return self.publish_again()

    def publish_again(self) -> int:
        """Send the relays a table with the configuration as it is now. Returns the version of that table."""
        self._version += 1
        table = self._table()
        self.relay_server.publish(table)
        if self._reported is not None:
            names = console.named_backends(self.config)
            self._reported, lines = console.progress(self._reported, self._backends, names, time.monotonic())
            terminal.print_lines(*lines)
        return self._version

    def _table(self) -> Table:
        table = build_table.build(
            self.config.model_copy(update={"backends": self._discovery.applied(self.config.backends)}),
            self.ejections.applied(self.provenance.applied(self._capabilities.applied(self._backends))),
            self._version,
            self.is_draining,
            self._created,
            is_loopback=self._is_loopback,
            max_connections=self._max_connections,
            stored=self.team.keyring.stored,
            is_beginning=self.team.is_beginning,
        )
        return self._certificates.applied(table)

    # -- the terminal

    def announce(self) -> None:
        """Print the banner, and from now on a line whenever something changes with the engines."""
        text = console.banner(
            self._table(),
            version=__version__,
            url=self._url,
            is_loopback=self._is_loopback,
            chat_model=console.chat_model(self.config),
            implicit=self._implicit,
        )
        terminal.print_lines(text)
        names = console.named_backends(self.config)
        self._reported, lines = console.progress({}, self._backends, names, time.monotonic())
        terminal.print_lines(*lines)

    # -- what an administrator asks for (app.supervisor.admin.app.AdminApi)

    def health(self) -> Health:
        """Version, models and backends with their states and reasons."""
        table = self._table()
        return Health(
            status=views.overall(table, self.disk.trouble or self.team.store.trouble, self.fleet.status()),
            version=__version__,
            uptime_s=round(time.monotonic() - self._started_at, 3),
            models=views.models(table, self.fleet.status()),
            backends=tuple(BackendAnswer.of(status) for status in self.visible()),
            quarantined=tuple(map(QuarantineAnswer.of, self.fleet.quarantined)),
            state_folder=self.disk.trouble,
            store=self.team.health(),
            gateway=self.team.name,
            config=self._digest.of(self.config),
        )

    def models(self) -> Models:
        """The public names with their states, the wildcards, and the pairs to compare."""
        hidden = self._implicit.difference(status.name for status in self.visible())
        return views.listed(self._table(), self.fleet.status(), hidden)

    def status(self) -> Status:
        """`health`, with the processes, the address and the state folder."""
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
                pids=self.relays.pids, connected=tuple(sorted(self.relay_server.pids)), restarts=self.relays.restarts
            ),
        )

    async def plan(self) -> PlanAnswer:
        """Where each configured engine would run on this machine, with what was measured."""
        config, quarantined = self.config, {each.device: each.reason for each in self.fleet.quarantined}
        machine = await asyncio.to_thread(devices.machine, config.server.memory_gb, self._options.env)
        running = views.resident_gb(self.fleet.status())
        return await asyncio.to_thread(report.plan, config, machine, self._measurements, quarantined, running)

    def logs(self, backend: str, lines: int, life: int | None = None) -> Logs:
        """The last lines of its process in this life. KeyError: no such backend; Problem (404): no such life."""
        return views.logs(backend, lines, life, self.fleet.log(backend, life), time.monotonic())

    # -- what an administrator orders

    async def start(self, backend: str) -> BackendAnswer:
        """Start it; earlier failures no longer count."""
        self._check_open()
        await self.fleet.start(backend)
        return self._answer(backend)

    async def stop(self, backend: str) -> BackendAnswer:
        """Stop it once its requests are done, until it is started again."""
        self._check_open()
        await self.fleet.stop(backend)
        return self._answer(backend)

    async def restart(self, backend: str) -> BackendAnswer:
        """Stop it as `stop` does, then start it."""
        self._check_open()
        await self.fleet.restart(backend)
        return self._answer(backend)

    def adapters(self, backend: str) -> AdaptersAnswer:
        """The adapters that it is to have, each with the reason where its engine does not have it."""
        return self._adapter_orders.answer(backend)

    async def load_adapter(self, backend: str, order: AdapterOrder) -> AdaptersAnswer:
        """Serve an adapter under a public name. Problem: the name is taken, or the engine refuses it."""
        self._check_open()
        return await self._adapter_orders.load(backend, order)

    async def unload_adapter(self, backend: str, name: str) -> AdaptersAnswer:
        """Stop serving an adapter."""
        self._check_open()
        return await self._adapter_orders.unload(backend, name)

    async def probe(self, model: str, capabilities: Collection[str], *, again: bool) -> ProbesAnswer:
        """Test what a model can do. KeyError: no such model; Problem: its engine cannot be asked now."""
        self._check_open()
        return await self._prober.probe(self._table(), model, capabilities, again=again)

    async def observe(self, model: str, questions: Questions) -> Observation:
        """What a served model does. KeyError: no such model; Problem: its engine cannot be asked now."""
        self._check_open()
        return await self._observer.observe(self._table(), model, questions)

    async def keep_certificate(self, model: str, certificate: Certificate) -> Certificate:
        """Keep it, show it in lists of models, and return the one that is kept. KeyError: no such model."""
        kept = await asyncio.to_thread(self._certificates.put, public_name(self._table(), model), certificate)
        self.publish_again()
        return kept

    async def reload(self) -> Reloaded:
        """Read the configuration again and apply it. ConfigError for an invalid one, which changes nothing."""
        async with self._reloading, self.while_reloading():
            self._check_open()
            try:
                config = await asyncio.to_thread(load_all, self._options, self._bound, self.team.keyring.has_keys)
            except ConfigError as exc:
                log.error("configuration refused; nothing has changed", errors=exc.errors)
                raise
            changed = fixed_settings.needs_restart(self.config, config)
            capacity = await asyncio.to_thread(self._capacity, config)
            before, self.config = self.config, fixed_settings.as_started(self.config, config)
            self.fleet.drain_s, self.fleet.wait_s = config.server.drain_s, config.server.wait_s
            self.fleet.share(capacity)
            self._discovery.follow(config.backends)
            self.team.follow(self.config)
            try:
                await self.fleet.reload(self._discovery.applied(config.backends))
            except BaseException:
                self.config = before
                self._discovery.follow(before.backends)
                self.team.follow(before)
                raise
            version = self.publish_again()
            open_files.warn_of_few(config.server.max_connections, self._max_connections)
            pending = self.fleet.pending()
            log.info("configuration reloaded", table=version, needs_restart=changed, pending=pending)
            return Reloaded(table_version=version, needs_restart=changed, pending=pending)

    async def follow_names(self) -> None:
        """Follow the host names of remote engines to their addresses until cancelled."""
        await self._discovery.run(self._names_changed)

    async def _names_changed(self) -> None:
        async with self._reloading:
            if not self.is_draining:
                await self.fleet.reload(self._discovery.applied(self.config.backends), is_requested=False)
                self.publish_again()

    def _check_open(self) -> None:
        if self.is_draining:
            raise Problem(503, "shutting_down", "The gateway is shutting down and takes no more orders.")

    # -- from what the fleet reports to what is shown

    def _answer(self, backend: str) -> BackendAnswer:
        return next(BackendAnswer.of(status) for status in self.fleet.status() if status.name == backend)

    def _snapshot(self) -> GatewaySnapshot:
        table = self._table()
        return GatewaySnapshot(
            backends=snapshot.backend_counts(self.visible()),
            quarantines=snapshot.quarantines(self._devices, self.fleet.quarantined),
            trouble=self.disk.trouble,
            outcomes=self._certificates.outcomes(table),
            members=snapshot.pair_members(self.config.pairs, table),
            pids={"supervisor": os.getpid(), **self.relays.named},
            team=self.team.counts(),
        )

    def visible(self) -> list[BackendStatus]:
        """All, except those that nobody configured and that have never answered."""
        known = (each for each in self.fleet.status() if each.generation or each.name not in self._implicit)
        return self.ejections.shown(known)
