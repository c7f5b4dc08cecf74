"""One backend of the fleet: its engine, its life, and the tasks that do what the life decides.

It reports what happens as events and never changes its life itself: the fleet does, in one place.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from app.supervisor.capacity.gpu_quarantine import GpuQuarantine
from app.supervisor.capacity.placement import Allocation, Gpu
from app.supervisor.capacity.sizes import Sizes
from app.supervisor.file_stamp import stamp
from app.supervisor.fleet import warm_up as fleet_warm_up
from app.supervisor.fleet.adapters import AdapterSet
from app.supervisor.fleet.download import ModelDownload
from app.supervisor.fleet.past_lives import PastLives
from app.supervisor.fleet.probe_loop import watch
from app.supervisor.relays import table_rows
from backends.config.base import BackendConfig
from backends.endpoint import State
from backends.engine import Engine, Launch, Need, Probe
from backends.errors import BackendError
from backends.kinds import kind_of
from backends.lifecycle.events import Event, Exited, StopAsked, Tick
from backends.lifecycle.phases import Intent, Lifecycle, Phase, Policy
from backends.process import process
from backends.process.exit_reasons import Settled, exit_in_words
from backends.process.footprint import Footprint

LAST_WORDS_S: Final = 1.0  # for the output of a process that ended, before its failure is put in words

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OrderRefused:
    """A configuration that an engine does not start with."""

    config: BackendConfig
    reason: str


class Unit:
    """A backend by name. `life` is written by the fleet only; the rest is of the start that `life.generation` names."""

    def __init__(
        self,
        name: str,
        config: BackendConfig,
        state_id: str,
        post: Callable[[Unit, Event], None],
        random: Callable[[], float],
        engine: Callable[[str, BackendConfig], Engine],
        sizes: Sizes,
        quarantine: GpuQuarantine,
        generation: int = 0,
    ) -> None:
        self.name = name
        self.life = Lifecycle(generation=generation)
        self.past = PastLives()
        self.waiters: set[asyncio.Future[None]] = set()
        self.restarts = 0
        self.load_s: float | None = None
        self.withdrawn: int | None = None  # the table version that no longer shows its endpoint, while it drains
        self.successor: BackendConfig | None = None  # what it becomes once stopped
        self.starts_after = False
        self.entry = name  # of the configuration, which may be several units
        self.parting: StopAsked | None = None  # it is to stop so, when its replicas can spare it
        self.refused: OrderRefused | None = None  # what it was to become, and does not start
        self.is_leaving = False
        self.is_unasked = False  # nobody configured it
        self.place: Allocation | None = None  # what it has of the machine, until nothing of its process is left
        self.waits_for_first = False  # another replica must have started before
        self.requested_by_admin = False  # the administrator waits for it
        self.is_barred = False  # it did not start because of a GPU in quarantine
        self.idle_since: float | None = None  # while it serves and nobody needs it
        self.footprint: Footprint | None = None  # as its last start was measured
        self.swaps = 0  # how often it made way for another
        self.has_served = False  # this start has finished a request
        self.tries_at: float | None = None  # Unix seconds: when it may be started again after it has given up
        self.waits_for: str | None = None  # while it waits for room
        self.is_closing = False  # the gateway ends
        self.stamp: Hashable = None  # of the files that its latest start read
        self._state_id = state_id
        self._post = post
        self._random = random
        self._engine = engine
        self._sizes = sizes
        self._quarantine = quarantine
        self._found: Sequence[Gpu] = ()  # its GPUs, before this start
        self._process: process.Process | None = None
        self._fetching = ModelDownload(self)
        self._live: asyncio.Task[None] | None = None
        self._before: asyncio.Task[None] | None = None  # which `_live` waits for
        self._watching: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None
        self.poke = asyncio.Event()  # it is to be looked at now
        self._in_full: tuple[str, str] | None = None  # a reason as clients are told it, and all of it
        self._order = ""  # what was asked of this start, whose process may not exist yet: term, kill
        self.become(config)

    def __repr__(self) -> str:
        return f"<Unit {self.name} {self.life.state.upper()} #{self.life.generation} pid={self.pid}>"

    def become(self, config: BackendConfig) -> None:
        """Take this configuration; only while nothing of it runs."""
        self.config = config
        self.kind = kind_of(config)
        self.engine = self._engine(self.name, config)
        managed = config.as_managed()
        self.policy = (
            Policy(
                is_fetched=self.engine.fetcher is not None,
                is_placed=True,
                start_timeout_s=managed.start_timeout_s,
                stop_grace_s=managed.stop_grace_s,
            )
            if managed is not None
            else Policy(is_attached=True)
        )
        self.starts_at_boot = managed is None or managed.start == "boot"
        self.need = self._sizes.of(self.name, managed).need if managed is not None else Need()
        self.is_pinned = managed is not None and managed.pinned
        self.adapters = AdapterSet(
            self.name, managed.adapter_paths() if managed is not None else {}, self.engine.adapters
        )
        self.sleep_level = managed.sleep_level() if managed is not None and self.engine.sleeper is not None else 0
        self.successor = self.parting = self.refused = None
        self.endpoint = self.engine.endpoint(self.life.generation, 0, "")
        self.probe = Probe(False)

    @property
    def pid(self) -> int | None:
        """The engine's process, while it lives; and until its life has heard that it does not."""
        is_known = self.life.state is State.READY
        return (
            self._process.pid if self._process is not None and (is_known or not self._process.exited.done()) else None
        )

    @property
    def reason(self) -> str | None:
        """Why it does not serve, for the administrator: with paths of this machine, which clients are not told."""
        is_known = self._in_full is not None and self.life.reason == self._in_full[0]
        told = table_rows.told(self, self._in_full[1] if is_known and self._in_full is not None else self.life.reason)
        return told or (self.waits_for if self.life.is_queued else None)

    @property
    def is_managed(self) -> bool:
        """We run its process."""
        return not self.policy.is_attached

    @property
    def is_to_follow(self) -> bool:
        """It stops for another configuration of it, which whoever waits gets started."""
        is_asked = self.successor is not None and self.parting is None
        return is_asked and self.life.intent is not Intent.HELD and not self.is_leaving

    @property
    def unload_at(self) -> float:
        """When it will have been idle for too long; infinite for never."""
        managed = self.config.as_managed()
        after_s = managed.unload_after_s if managed is not None else None
        return math.inf if after_s is None or self.idle_since is None else self.idle_since + after_s

    def expected_s(self, now: float) -> float | None:
        """How long until it serves, by what its last start took; None when it has never started."""
        if (left_s := self.fetch_left_s) is not None:
            return left_s + (self.load_s or 0.0)
        if self.load_s is None:
            return None
        is_loading = (
            self.life.state is State.STARTING and self.life.has_process and self.life.phase is not Phase.FETCHING
        )
        return max(0.0, self.load_s - (now - self.life.since)) if is_loading else self.load_s

    @property
    def fetch_left_s(self) -> float | None:
        """How long what it needs is still on its way here, where that is known."""
        return self._fetching.left_s if self.life.phase is Phase.FETCHING else None

    @property
    def is_pending(self) -> bool:
        """It is on its way to serve."""
        if self.life.state is State.READY:
            return False
        return self.life.state is State.STARTING or self.life.intent is Intent.RESTART or self.successor is not None

    def answer(self) -> None:
        """Tell those who wait to look again."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def log_tail(self) -> list[str]:
        """The last lines that its latest process wrote."""
        return self._process.tail() if self._process is not None else []

    def look(self) -> None:
        """Probe it now, if it is being probed."""
        self.poke.set()

    @property
    def has_remains(self) -> bool:
        """A process of it is there, or not known to be gone altogether."""
        return self.life.has_process or (self._live is not None and not self._live.done())

    @property
    def keeps_place(self) -> bool:
        """As long as there are remains; what is only brought here needs no place."""
        if self.life.phase is Phase.FETCHING:
            return self._before is not None and not self._before.done()
        return self.has_remains

    def fetch(self, generation: int) -> None:
        """Bring here what its next start needs, once the process before is gone altogether."""
        self._follow(generation, self._fetching.run)

    def spawn(self, generation: int) -> None:
        """Start its process, once the one before is gone altogether."""
        self.has_served = False
        self.adapters.begin()
        self._follow(generation, self._run)

    def _follow(self, generation: int, work: Callable[[int], Awaitable[None]]) -> None:
        self._order, self._before = "", self._live
        self._live = asyncio.create_task(self._behind(self._before, generation, work), name=f"{self.name}#{generation}")
        # Only then is its place free: news for those who wait for it.
        self._live.add_done_callback(lambda _: self._post(self, Tick()))

    def warm_up(self, generation: int) -> None:
        """Make it do a first piece of work."""
        if self.policy.is_attached:
            self.endpoint = self.engine.endpoint(generation, 0, "")
        self._warming = asyncio.create_task(
            fleet_warm_up.warm_up(self, generation), name=f"warm-up {self.name}#{generation}"
        )

    def sleep(self, generation: int, level: int) -> None:
        """Put it to sleep."""
        self._warming = asyncio.create_task(
            fleet_warm_up.sleep(self, generation, level), name=f"sleep {self.name}#{generation}"
        )

    def wake_up(self, generation: int) -> None:
        """Wake it and make it do a first piece of work."""
        self._warming = asyncio.create_task(
            fleet_warm_up.warm_up(self, generation, is_asleep=True), name=f"wake-up {self.name}#{generation}"
        )

    def watch(self) -> None:
        """Ask again and again how it is."""
        self._watching = asyncio.create_task(watch(self, self._process), name=f"watch {self.name}")

    def chance(self) -> float:
        """A number in [0, 1)."""
        return self._random()

    def post(self, event: Event) -> None:
        """This happened to it."""
        self._post(self, event)

    def unwatch(self) -> None:
        """Stop asking."""
        for task in (self._watching, self._warming):
            if task is not None:
                task.cancel()

    def terminate(self) -> None:
        """TERM."""
        self._order = self._order or "term"
        self._obey()

    def kill(self) -> None:
        """KILL."""
        self._order = "kill"
        self._obey()

    def _obey(self) -> None:
        if self._process is not None and self._order:
            (self._process.kill if self._order == "kill" else self._process.terminate)()

    @property
    def is_gone(self) -> bool:
        """Nothing of it runs any more."""
        return all(task is None or task.done() for task in (self._live, self._watching, self._warming))

    async def gone(self) -> None:
        """Nothing of it runs any more; after a stop."""
        tasks = {task for task in (self._live, self._watching, self._warming) if task is not None}
        if tasks:
            await asyncio.wait(tasks)

    async def _behind(
        self, before: asyncio.Task[None] | None, generation: int, work: Callable[[int], Awaitable[None]]
    ) -> None:
        """Do this work when the one before is done; what fails in it is how the start ended."""
        try:
            if before is not None:
                await asyncio.wait({before})
            await work(generation)
        except (BackendError, OSError) as exc:
            reason, in_full = (
                (exc.message, exc.in_full) if isinstance(exc, BackendError) else (exc.strerror or str(exc), str(exc))
            )
            self._in_full = (reason, in_full)
            is_final = isinstance(exc, BackendError) and exc.is_final
            self._post(self, Exited(generation, reason, self._random(), is_final))
        except Exception:
            log.exception("engine not started", backend=self.name)
            self._post(self, Exited(generation, "the supervisor could not start it; see its log", self._random()))

    async def _run(self, generation: int) -> None:
        launch, key = await self._prepare(generation)
        self._found = await self._quarantine.read(self.place.devices if self.place is not None else ())
        running = await self.spawned(str(generation), launch, key)
        await self._attend(generation, running)
        share = self.place.share if self.place is not None else 1.0
        await self._quarantine.wait_until_free(self.name, self._found, share)

    async def spawned(self, what: str, launch: Launch, *secrets: str) -> process.Process:
        """The process of this launch, known by `what` among the backend's; it obeys `terminate` and `kill`."""
        if self._order:
            raise InterruptedError("stopped before it started")
        tag = f"{self._state_id}:{self.name}:{what}"
        running = await process.spawn(launch, tag, (*secrets, *launch.secrets))
        self._process = running
        self._obey()
        return running

    async def _prepare(self, generation: int) -> tuple[Launch, str]:
        key, port = secrets.token_urlsafe(32), process.free_port()
        self.endpoint = self.engine.endpoint(generation, port, key)
        # It may look at files, and those may be far away.
        devices = self.place.devices if self.place is not None else ()
        self.stamp = await asyncio.to_thread(lambda: stamp(self.engine.inputs()))
        launch = await asyncio.to_thread(self.engine.launch, port, devices, key)
        if launch is None:
            raise InterruptedError("nothing to start")
        return launch, key

    async def _attend(self, generation: int, running: process.Process) -> None:
        """From the process's first moment to its last."""
        log.info("engine starting", backend=self.name, generation=generation, pid=running.pid)
        self.past.began(generation, running.tail)
        self.watch()
        try:
            await asyncio.wait({running.exited})
            self.unwatch()
            if self.life.state is not State.READY:
                # Why it did not start is in its last words; one that served leaves routing first.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(running.gone()), LAST_WORDS_S)
            code = running.exited.result()
            log.info("engine exited", backend=self.name, generation=generation, pid=running.pid, code=code)
            reason = running.why(code, has_served=self.life.ready_at is not None)
            if self.life.phase is Phase.DYING and reason == exit_in_words(code, ()):
                reason = self.life.reason or reason
            self._post(self, Exited(generation, reason, self._random(), isinstance(reason, Settled)))
        finally:
            self.unwatch()
            running.kill()
            await running.gone()

    def unlist(self, model: str) -> None:
        """It has no model of that name any more, as the next probe will say too."""
        if self.probe.models is not None and model in self.probe.models:
            self.probe = replace(self.probe, models=tuple(name for name in self.probe.models if name != model))

    def enlist(self, model: str) -> None:
        """It has a model of that name now, as the next probe will say too."""
        if self.probe.models is not None and model not in self.probe.models:
            self.probe = replace(self.probe, models=(*self.probe.models, model))

    def with_cause(self, reason: str) -> str:
        """The reason, and what the engine printed of it, when that says anything."""
        told = self._process.why(0, has_served=self.life.ready_at is not None) if self._process is not None else ""
        return reason if told in ("", exit_in_words(0, ())) else f"{reason.rstrip('.')}; {told}"

    async def measure(self) -> None:
        """What it takes now; where nobody has said that, it has its place by it."""
        running = self._process
        if running is None:
            return
        found = await asyncio.to_thread(running.footprint)
        self.footprint = replace(found, device_gb=await self._quarantine.taken_gb(self._found))
        managed = self.config.as_managed()
        if managed is not None:
            await self._sizes.keep(self.name, managed, self.footprint)
            self.need = self._sizes.of(self.name, managed).need
        if self.need.is_guess and self.place is not None:
            self.place = replace(self.place, memory_gb=self.need.memory_gb)
