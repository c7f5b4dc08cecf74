"""The processes and tasks of one unit: they do what its life decides, and report what happens as events."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from app.supervisor.capacity.placement import Gpu
from app.supervisor.file_stamp import stamp
from app.supervisor.fleet import warm_up
from app.supervisor.fleet.download import ModelDownload
from app.supervisor.fleet.probe_loop import watch
from backends.endpoint import State
from backends.engine import Launch
from backends.errors import BackendError
from backends.lifecycle.events import (
    Action,
    Exited,
    Fetch,
    Kill,
    Sleep,
    Spawn,
    Terminate,
    Tick,
    Unwatch,
    WakeUp,
    WarmUp,
    Watch,
)
from backends.lifecycle.phases import Phase
from backends.model_files.sources import Sources
from backends.process import process
from backends.process.exit_reasons import Settled, exit_in_words
from backends.process.footprint import Footprint

if TYPE_CHECKING:
    from app.supervisor.fleet.unit import Unit

LAST_WORDS_S: Final = 1.0  # for the output of a process that ended, before its failure is put in words

log = structlog.get_logger()


class Runner:
    """Of one unit, over all its starts: there is never a second process before the first is gone altogether."""

    def __init__(self, unit: Unit) -> None:
        self.inputs: Hashable = None  # a stamp of the files that the latest start read
        self.sources: Sources | None = None  # what the answers of the latest start depend on
        self._unit = unit
        self._download = ModelDownload(unit, self)
        self._process: process.Process | None = None
        self._gpus_before: Sequence[Gpu] = ()  # its GPUs, before this start
        self._work: asyncio.Task[None] | None = None  # a download, or a start from its first moment to its last
        self._work_before: asyncio.Task[None] | None = None  # which `_work` waits for
        self._watching: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None
        self._reason_in_full: tuple[str, str] | None = None  # a reason as clients get it, and all of it
        self._signal = ""  # what was sent to this start, whose process may not exist yet: term, kill
        self._look = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the engine's process while it runs, and until its exit has been reported."""
        if self._process is None:
            return None
        is_known = self._unit.life.state is State.READY
        return self._process.pid if is_known or not self._process.exited.done() else None

    @property
    def fetch_left_s(self) -> float | None:
        """How many seconds the download of its files will still take; None where that is not known."""
        return self._download.left_s if self._unit.life.phase is Phase.FETCHING else None

    @property
    def has_remains(self) -> bool:
        """Whether a process of the unit is there, or the memory of its GPUs is not known to be free again."""
        return self._unit.life.has_process or (self._work is not None and not self._work.done())

    @property
    def keeps_place(self) -> bool:
        """Whether the unit keeps its place: while there are remains of a start; a download needs no place."""
        if self._unit.life.phase is Phase.FETCHING:
            return self._work_before is not None and not self._work_before.done()
        return self.has_remains

    @property
    def is_gone(self) -> bool:
        """Whether no process and no task of the unit runs any more."""
        return all(task is None or task.done() for task in (self._work, self._watching, self._warming))

    async def gone(self) -> None:
        """Wait, after a stop, until no process and no task of the unit runs any more."""
        tasks = {task for task in (self._work, self._watching, self._warming) if task is not None}
        if tasks:
            await asyncio.wait(tasks)

    def in_full(self, reason: str | None) -> str | None:
        """This reason for the administrator, with paths of this machine; clients get it without them."""
        known = self._reason_in_full
        return known[1] if known is not None and known[0] == reason else reason

    def tail(self) -> list[str]:
        """The last lines that the latest process wrote."""
        return self._process.tail() if self._process is not None else []

    def with_cause(self, reason: str) -> str:
        """The reason, and what the engine printed of it, when that says anything."""
        has_served = self._unit.life.ready_at is not None
        cause = self._process.why(0, has_served=has_served) if self._process is not None else ""
        return reason if cause in ("", exit_in_words(0, ())) else f"{reason.rstrip('.')}; {cause}"

    async def footprint(self) -> Footprint | None:
        """What the process takes now; None where there is none."""
        running = self._process
        if running is None:
            return None
        footprint = await asyncio.to_thread(running.footprint)
        return replace(footprint, device_gb=await self._unit.shared.quarantine.taken_gb(self._gpus_before))

    def note_inputs(self, files: Hashable) -> None:
        """Take this as the stamp of the latest start's files, where the start failed before it read them."""
        if self.inputs is None:
            self.inputs = files

    def do(self, action: Action) -> None:
        """Begin to do what the life decided; returns at once."""
        match action:
            case Fetch(generation):
                self._follow(generation, self._download.run)
            case Spawn(generation):
                self._unit.adapters.begin()
                self._follow(generation, self._run)
            case WarmUp(generation):
                if self._unit.policy.is_attached:
                    self._unit.reach_at(generation)
                self._warm(warm_up.warm_up(self._unit, generation), f"warm-up {self._unit.name}#{generation}")
            case Sleep(generation, level):
                self._warm(warm_up.sleep(self._unit, generation, level), f"sleep {self._unit.name}#{generation}")
            case WakeUp(generation):
                waking = warm_up.warm_up(self._unit, generation, is_asleep=True)
                self._warm(waking, f"wake-up {self._unit.name}#{generation}")
            case Watch():
                self._watch()
            case Unwatch():
                self.unwatch()
            case Terminate():
                self._signal = self._signal or "term"
                self._send()
            case Kill():
                self.kill()

    def look(self) -> None:
        """Have it probed now, if it is watched."""
        self._look.set()

    def looking(self) -> None:
        """The probe begins: calls of `look` from now on ask for another one."""
        self._look.clear()

    async def look_asked(self, within_s: float) -> None:
        """Wait until `look` is called, for at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._look.wait()

    def unwatch(self) -> None:
        """Stop asking how it is."""
        for task in (self._watching, self._warming):
            if task is not None:
                task.cancel()

    def kill(self) -> None:
        """Send KILL, now or as soon as there is a process."""
        self._signal = "kill"
        self._send()

    def _send(self) -> None:
        if self._process is not None and self._signal:
            (self._process.kill if self._signal == "kill" else self._process.terminate)()

    def _watch(self) -> None:
        watching = watch(self._unit, self._process)
        self._watching = asyncio.create_task(watching, name=f"watch {self._unit.name}")

    def _warm(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._warming = asyncio.create_task(work, name=name)

    def _follow(self, generation: int, work: Callable[[int], Awaitable[None]]) -> None:
        unit = self._unit
        self._signal, self._work_before = "", self._work
        behind = self._behind(self._work_before, generation, work)
        self._work = asyncio.create_task(behind, name=f"{unit.name}#{generation}")
        # Its place is free only now: others may be waiting for it.
        self._work.add_done_callback(lambda _: unit.post(Tick()))

    async def _behind(
        self, before: asyncio.Task[None] | None, generation: int, work: Callable[[int], Awaitable[None]]
    ) -> None:
        """Do this work when the work before is done; an exception in it is reported as the end of the start."""
        unit = self._unit
        try:
            if before is not None:
                await asyncio.wait({before})
            await work(generation)
        except BackendError as exc:
            self._reason_in_full = (exc.message, exc.in_full)
            unit.post(Exited(generation, exc.message, unit.chance(), exc.is_final))
        except OSError as exc:
            reason = exc.strerror or str(exc)
            self._reason_in_full = (reason, str(exc))
            unit.post(Exited(generation, reason, unit.chance()))
        except Exception:
            log.exception("engine not started", backend=unit.name)
            unit.post(Exited(generation, "the supervisor could not start it; see its log", unit.chance()))

    async def _run(self, generation: int) -> None:
        unit = self._unit
        launch, key = await self._prepare(generation)
        self._gpus_before = await unit.shared.quarantine.read(unit.devices)
        running = await self.spawned(str(generation), launch, key)
        await self._attend(generation, running)
        place = unit.occupancy.place
        await unit.shared.quarantine.wait_until_free(
            unit.name, self._gpus_before, place.share if place is not None else 1.0
        )

    async def spawned(self, what: str, launch: Launch, *secrets: str) -> process.Process:
        """The process of this launch, tagged with `what` within the backend; it gets the signals that `do` sends."""
        if self._signal:
            raise InterruptedError("stopped before it started")
        tag = f"{self._unit.shared.state_id}:{self._unit.name}:{what}"
        running = await process.spawn(launch, tag, (*secrets, *launch.secrets))
        self._process = running
        self._send()
        return running

    async def _prepare(self, generation: int) -> tuple[Launch, str]:
        unit = self._unit
        key, port = secrets.token_urlsafe(32), process.free_port()
        unit.reach_at(generation, port, key)
        # It may look at files, and those may be far away.
        devices = unit.devices
        self.inputs = await asyncio.to_thread(lambda: stamp(unit.engine.inputs()))
        launch = await asyncio.to_thread(unit.engine.launch, port, devices, key)
        if launch is None:
            raise InterruptedError("nothing to start")
        self.sources = launch.sources
        return launch, key

    async def _attend(self, generation: int, running: process.Process) -> None:
        """From the process's first moment to its last."""
        unit = self._unit
        log.info("engine starting", backend=unit.name, generation=generation, pid=running.pid)
        unit.record.past.began(generation, running.tail, running.printed)
        self._watch()
        try:
            await asyncio.wait({running.exited})
            self.unwatch()
            if unit.life.state is not State.READY:
                # Why it did not start is in its last words; one that served leaves routing first.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORDS_S):
                        await asyncio.shield(running.gone())
            code = running.exited.result()
            log.info("engine exited", backend=unit.name, generation=generation, pid=running.pid, code=code)
            reason = running.why(code, has_served=unit.life.ready_at is not None)
            if unit.life.phase is Phase.DYING and reason == exit_in_words(code, ()):
                reason = unit.life.reason or reason
            unit.post(Exited(generation, reason, unit.chance(), isinstance(reason, Settled)))
        finally:
            self.unwatch()
            running.kill()
            await running.gone()
