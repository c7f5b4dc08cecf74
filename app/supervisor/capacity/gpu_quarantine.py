"""Whether a GPU's memory is back once an engine has ended, and what happens when it is not.

The driver frees a process's memory some time after the process has gone, and sometimes, after a fault of the hardware
or of a driver, never. What would start there meanwhile finds too little and fails. So the place of an ended engine is
kept until its memory is back, and a GPU whose memory is not back in time is in quarantine: nothing is placed there
before a later look finds the memory back, or the administrator reloads the configuration.
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
ANSWER_S: Final = 10.0  # after a fault of a GPU its driver may never answer

# What a driver keeps for itself changes with who else uses the GPU.
_SLACK_GB: Final = 0.5
_SLACK: Final = 0.02

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A GPU that nothing is placed on. `missing_gb` is None where it cannot be read any more."""

    device: str
    backend: str
    missing_gb: float | None

    @property
    def reason(self) -> str:
        """For people."""
        if self.missing_gb is None:
            return f"{self.device} is in quarantine: it could not be read after {self.backend} ended"
        return f"{self.device} is in quarantine: {gb(self.missing_gb)} GB of it did not come back after {self.backend}"


def missing_gb(before: Gpu, now: Gpu, alive: Collection[int], is_shared: bool) -> float:
    """How much more memory than before is in use and belongs to no process of others; 0 when that is next to nothing.

    Others are the processes that were there before the engine started, and those on the GPU that are `alive` now: of
    the engine itself none is. `is_shared`: another engine of ours is on the GPU; where its processes are not shown to
    us, as in a container, or their sizes are not, nothing can be told, and nothing is missing. Pure.
    """
    others = {pid for pid, _ in before.users} | set(alive)
    theirs = [(pid, size) for pid, size in now.users if pid in others]
    has_remains = len(theirs) < len(now.users)
    is_dark = any(size is None for _, size in (*theirs, *before.users)) or (is_shared and not theirs)
    if is_dark and not has_remains:
        return 0.0
    nobodys = now.used_gb - sum(size or 0.0 for _, size in theirs)
    nobodys_before = before.used_gb - sum(size or 0.0 for _, size in before.users)
    more = nobodys - nobodys_before
    return more if more > max(_SLACK_GB, _SLACK * now.memory_gb) else 0.0


def may_be_used(before: Gpu, now: Gpu, share: float) -> bool:
    """Whether what is in use may be somebody else's, and an engine with this share has room beside it.

    Where no process was shown to us before and none is now, as in a container, nothing tells whose memory it is. Pure.
    """
    return not before.users and not now.users and now.memory_gb - now.used_gb >= share * now.memory_gb


class GpuQuarantine:
    """Looks at the GPUs before an engine starts and after it has ended. Owns the quarantine.

    `on_lifted` is called when a GPU may be used again, `neighbours` tells which engines have a place on one.
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
        self._overdue: threading.Thread | None = None  # it asked, and has no answer yet
        self._is_closing = asyncio.Event()
        self._lookers: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Reclaim quarantined={list(self.quarantined)}>"

    async def look(self, devices: Sequence[str]) -> tuple[Gpu, ...]:
        """These GPUs as they are now; without any that cannot be read."""
        if not devices:
            return ()
        return tuple(gpu for gpu in await self._answer() if gpu.uuid in devices)

    async def _answer(self) -> Sequence[Gpu]:
        """All GPUs; none while the driver does not answer. Nobody waits for such a question, not even at the end."""
        if self._overdue is not None and self._overdue.is_alive():
            return ()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[Gpu]] = loop.create_future()
        thread = threading.Thread(target=_ask, args=(self._gpus, loop, answer), name="GPUs", daemon=True)
        thread.start()
        try:
            async with asyncio.timeout(self._answer_s):
                return await answer
        except TimeoutError:
            self._overdue = thread
            log.error("GPUs not readable: the driver does not answer", seconds=self._answer_s)
            return ()

    async def taken_gb(self, before: Sequence[Gpu]) -> float | None:
        """How much more of these GPUs is in use than before; None without a GPU."""
        now = await self.look([gpu.uuid for gpu in before])
        if not now:
            return None
        return round(max(0.0, sum(gpu.used_gb for gpu in now) - sum(gpu.used_gb for gpu in before)), 3)

    async def back(self, backend: str, before: Sequence[Gpu], share: float = 1.0) -> None:
        """Returns when the memory that this engine had is back, or its GPUs are in quarantine.

        `share`: what it had of each. None of its processes is there any more. At once while we are closing: nothing
        will start there.
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
        """The administrator says that they may be used, whatever they look like."""
        if self.quarantined:
            log.warning("GPUs taken out of quarantine by order", devices=list(self.quarantined))
            self.quarantined = {}
            self.on_lifted()

    def hurry(self) -> None:
        """Nobody waits for memory any more."""
        self._is_closing.set()

    async def close(self) -> None:
        """No look is taken any more."""
        self.hurry()
        if self._lookers:
            await asyncio.wait(self._lookers)

    async def _missing(self, backend: str, before: Sequence[Gpu]) -> dict[str, float | None]:
        """Of each GPU where something is missing: how much; None where it is not there any more."""
        now = {gpu.uuid: gpu for gpu in await self.look([gpu.uuid for gpu in before])}
        found: dict[str, float | None] = {}
        for gpu in before:
            if gpu.uuid not in now:
                found[gpu.uuid] = None
                continue
            alive = [pid for pid, _ in now[gpu.uuid].users if _is_alive(pid)]
            is_shared = bool(set(self.neighbours(gpu.uuid)) - {backend})
            if missing := missing_gb(gpu, now[gpu.uuid], alive, is_shared):
                found[gpu.uuid] = missing
        return found

    def _quarantine(
        self, backend: str, before: Sequence[Gpu], missing: Mapping[str, float | None], share: float
    ) -> None:
        for gpu in before:
            if gpu.uuid in missing:
                put = Quarantine(gpu.uuid, backend, missing[gpu.uuid])
                self.quarantined = {**self.quarantined, gpu.uuid: put}
                log.error(
                    "GPU in quarantine: its memory is not back", device=gpu.uuid, backend=backend, reason=put.reason
                )
                looker = asyncio.create_task(self._recheck(put, gpu, share), name=f"quarantine {gpu.uuid}")
                self._lookers.add(looker)
                looker.add_done_callback(self._lookers.discard)

    async def _recheck(self, put: Quarantine, before: Gpu, share: float) -> None:
        """Until its memory is back or may be somebody else's, or somebody else has ended this quarantine."""
        while self.quarantined.get(put.device) is put and not self._is_closing.is_set():
            await self._pause(self._recheck_s)
            if self.quarantined.get(put.device) is not put:
                continue
            is_back = not await self._missing(put.backend, [before])
            if not is_back and not any(may_be_used(before, now, share) for now in await self.look([put.device])):
                continue
            if self.quarantined.get(put.device) is not put:
                continue
            self.quarantined = {device: each for device, each in self.quarantined.items() if each is not put}
            if is_back:
                log.info("GPU out of quarantine: its memory is back", device=put.device)
            else:
                log.warning("GPU out of quarantine: what is in use may be somebody else's", device=put.device)
            self.on_lifted()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_closing.wait(), seconds)


def _ask(gpus: Gpus, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Sequence[Gpu]]) -> None:
    try:
        found = gpus()
    except Exception:
        log.exception("GPUs not readable")
        found = ()
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(_tell, answer, found)


def _tell(answer: asyncio.Future[Sequence[Gpu]], found: Sequence[Gpu]) -> None:
    if not answer.done():  # else it was given up
        answer.set_result(found)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is, and somebody else's
        return True
    return True
