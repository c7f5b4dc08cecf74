"""Waits until a GPU's memory is free again after an engine has ended, and keeps a GPU in quarantine where it is not.

The driver frees a process's memory some time after the process has ended, and sometimes, after a fault of the hardware
or of the driver, never. An engine that starts there meanwhile finds too little and fails. So an ended engine keeps its
allocation until the memory is free, and a GPU whose memory is not free in time is in quarantine: nothing is started
there until a later check finds the memory free, or the administrator reloads the configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from app.supervisor.capacity.devices import Gpus
from app.supervisor.capacity.placement import Gpu, gb

WITHIN_S: Final = 60.0
POLL_S: Final = 1.0
RECHECK_S: Final = 10.0
ANSWER_S: Final = 10.0  # after a fault of a GPU its driver may never respond

# How much the driver itself needs changes with who else uses the GPU.
_SLACK_GB: Final = 0.5
_SLACK: Final = 0.02

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A GPU on which nothing is started. `missing_gb`: how much did not come back, None when it cannot be read."""

    device: str
    backend: str
    missing_gb: float | None

    @property
    def reason(self) -> str:
        """The quarantine in a sentence."""
        if self.missing_gb is None:
            return f"{self.device} is in quarantine: it could not be read after {self.backend} ended"
        return f"{self.device} is in quarantine: {gb(self.missing_gb)} GB of it did not come back after {self.backend}"


def missing_gb(before: Gpu, now: Gpu, alive: Collection[int], is_shared: bool) -> float:
    """How many GB more than before are in use that belong to no other process; 0 when that is next to nothing. Pure.

    Other processes are those that were there before the engine started, and those on the GPU that are `alive` now: the
    engine's own have all ended. `is_shared`: another engine of ours is on the GPU. Where its processes or their sizes
    are not shown to us, as in a container, nothing is known, and nothing counts as missing.
    """
    others = {pid for pid, _ in before.users} | set(alive)
    known = [(pid, size) for pid, size in now.users if pid in others]
    has_remains = len(known) < len(now.users)
    is_unknown = any(size is None for _, size in (*known, *before.users)) or (is_shared and not known)
    if is_unknown and not has_remains:
        return 0.0
    unowned = now.used_gb - sum(size or 0.0 for _, size in known)
    unowned_before = before.used_gb - sum(size or 0.0 for _, size in before.users)
    more = unowned - unowned_before
    return more if more > max(_SLACK_GB, _SLACK * now.memory_gb) else 0.0


def may_be_used(before: Gpu, now: Gpu, share: float) -> bool:
    """Whether the memory in use may be somebody else's and leaves room for an engine with this share. Pure.

    That is so where no processes are shown to us, neither before nor now, as in a container.
    """
    return not before.users and not now.users and now.memory_gb - now.used_gb >= share * now.memory_gb


class GpuQuarantine:
    """Reads the GPUs before an engine starts and after it has ended. Owns the quarantine.

    `on_lifted` is called when a GPU may be used again; `neighbours` returns the engines that have a share of a GPU.
    """

    def __init__(
        self,
        gpus: Gpus,
        *,
        within_s: float = WITHIN_S,
        poll_s: float = POLL_S,
        recheck_s: float = RECHECK_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        self.on_lifted: Callable[[], None] = lambda: None
        self.neighbours: Callable[[str], Collection[str]] = lambda _: ()
        self.quarantined: Mapping[str, Quarantine] = {}
        self._gpus = gpus
        self._within_s = within_s
        self._poll_s = poll_s
        self._recheck_s = recheck_s
        self._answer_s = answer_s
        self._overdue: threading.Thread | None = None  # it asks the driver, which has not responded
        self._is_closing = asyncio.Event()
        self._rechecks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<GpuQuarantine quarantined={list(self.quarantined)}>"

    async def read(self, devices: Sequence[str]) -> tuple[Gpu, ...]:
        """These GPUs as they are now, without those that cannot be read."""
        if not devices:
            return ()
        return tuple(gpu for gpu in await self._read_all() if gpu.uuid in devices)

    async def _read_all(self) -> Sequence[Gpu]:
        """All GPUs; none while the driver does not respond. Its thread is never waited for, not even at the end."""
        if self._overdue is not None and self._overdue.is_alive():
            return ()
        loop = asyncio.get_running_loop()
        gpus: asyncio.Future[Sequence[Gpu]] = loop.create_future()
        thread = threading.Thread(target=_ask, args=(self._gpus, loop, gpus), name="GPUs", daemon=True)
        thread.start()
        try:
            async with asyncio.timeout(self._answer_s):
                return await gpus
        except TimeoutError:
            self._overdue = thread
            log.error("GPUs not readable: the driver does not respond", seconds=self._answer_s)
            return ()

    async def taken_gb(self, before: Sequence[Gpu]) -> float | None:
        """How many GB more of these GPUs are in use than before; None without a GPU."""
        now = await self.read([gpu.uuid for gpu in before])
        if not now:
            return None
        return round(max(0.0, sum(gpu.used_gb for gpu in now) - sum(gpu.used_gb for gpu in before)), 3)

    async def wait_until_free(self, backend: str, before: Sequence[Gpu], share: float = 1.0) -> None:
        """Return when the memory that this engine had is free again, or its GPUs are in quarantine.

        Call it when all its processes have ended. `before`: the GPUs before it started; `share`: what it had of each.
        Returns at once while the gateway ends, since nothing will start there.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        missing = await self._missing(backend, before)
        while missing and not self._is_closing.is_set():
            if loop.time() - began >= self._within_s:
                self._quarantine(backend, before, missing, share)
                return
            await self._pause(self._poll_s)
            missing = await self._missing(backend, before)

    def lift(self) -> None:
        """End every quarantine, as the administrator orders."""
        if self.quarantined:
            log.warning("GPUs taken out of quarantine by order", devices=list(self.quarantined))
            self.quarantined = {}
            self.on_lifted()

    def stop_waiting(self) -> None:
        """Let every wait for memory return, now and later."""
        self._is_closing.set()

    async def close(self) -> None:
        """End all checks."""
        self.stop_waiting()
        if self._rechecks:
            await asyncio.wait(self._rechecks)

    async def _missing(self, backend: str, before: Sequence[Gpu]) -> dict[str, float | None]:
        """The GPUs where memory is missing, with how much (GB); None where the GPU cannot be read any more."""
        now = {gpu.uuid: gpu for gpu in await self.read([gpu.uuid for gpu in before])}
        missing: dict[str, float | None] = {}
        for gpu in before:
            if gpu.uuid not in now:
                missing[gpu.uuid] = None
                continue
            alive = [pid for pid, _ in now[gpu.uuid].users if _is_alive(pid)]
            is_shared = bool(set(self.neighbours(gpu.uuid)) - {backend})
            if size := missing_gb(gpu, now[gpu.uuid], alive, is_shared):
                missing[gpu.uuid] = size
        return missing

    def _quarantine(
        self, backend: str, before: Sequence[Gpu], missing: Mapping[str, float | None], share: float
    ) -> None:
        for gpu in before:
            if gpu.uuid in missing:
                quarantine = Quarantine(gpu.uuid, backend, missing[gpu.uuid])
                self.quarantined = {**self.quarantined, gpu.uuid: quarantine}
                log.error(
                    "GPU in quarantine: its memory is not back",
                    device=gpu.uuid,
                    backend=backend,
                    reason=quarantine.reason,
                )
                check = self._recheck(quarantine, gpu, share)
                recheck = asyncio.create_task(check, name=f"quarantine {gpu.uuid}")
                self._rechecks.add(recheck)
                recheck.add_done_callback(self._rechecks.discard)

    async def _recheck(self, quarantine: Quarantine, before: Gpu, share: float) -> None:
        """End this quarantine when the memory is free or may be somebody else's; return when it was ended otherwise."""
        while self.quarantined.get(quarantine.device) is quarantine and not self._is_closing.is_set():
            await self._pause(self._recheck_s)
            if self.quarantined.get(quarantine.device) is not quarantine:
                continue
            is_back = not await self._missing(quarantine.backend, [before])
            if not is_back and not any(may_be_used(before, now, share) for now in await self.read([quarantine.device])):
                continue
            if self.quarantined.get(quarantine.device) is not quarantine:
                continue
            self.quarantined = {device: each for device, each in self.quarantined.items() if each is not quarantine}
            if is_back:
                log.info("GPU out of quarantine: its memory is back", device=quarantine.device)
            else:
                log.warning("GPU out of quarantine: the memory in use may be somebody else's", device=quarantine.device)
            self.on_lifted()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_closing.wait()


def _ask(gpus: Gpus, loop: asyncio.AbstractEventLoop, result: asyncio.Future[Sequence[Gpu]]) -> None:
    try:
        listed = gpus()
    except Exception:
        log.exception("GPUs not readable")
        listed = ()
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(_set, result, listed)


def _set(result: asyncio.Future[Sequence[Gpu]], gpus: Sequence[Gpu]) -> None:
    if not result.done():  # else the wait has timed out
        result.set_result(gpus)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is alive, and another user's
        return True
    return True
