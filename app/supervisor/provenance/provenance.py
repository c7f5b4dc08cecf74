"""Reads what engines were started from, in the background and once for each file, and completes the table's rows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from app.supervisor.fleet.status import Started
from app.supervisor.json_store import JsonStore
from app.supervisor.provenance.servings import servings
from app.table import Backend, Serving
from backends.model_files.digests import Changed, stamped_digest
from backends.model_files.sources import FileStamp, is_unchanged

MOST: Final = 5000  # files that are remembered; the oldest go first
LOOK_S: Final = 30.0  # between looks at whether files have changed
REST_S: Final = 0.5  # between two looks that something gave rise to
SHARE: Final = 0.5  # of one core's time, at most, while it reads
_NICE: Final = 10

log = structlog.get_logger()


class _Known(msgspec.Struct, frozen=True):
    path: str
    size_bytes: int
    mtime_ns: int
    inode: int
    sha256: str


class _File(msgspec.Struct, frozen=True):
    version: Literal[1]
    digests: list[_Known]


class Provenance:
    """The digests of files, remembered by path, size, time and inode, and what follows of them for the engines that
    serve. `path` None: kept only as long as this object lives. `started`: those that serve now; `changed` is called
    when their rows have to be published again.
    """

    def __init__(
        self,
        path: Path | None,
        started: Callable[[], Sequence[Started]],
        changed: Callable[[], object],
        look_s: float = LOOK_S,
    ) -> None:
        self.file = JsonStore(path, _File)
        self._started = started
        self._changed = changed
        self._look_s = look_s
        content = self.file.read()
        self._digests = (
            {FileStamp(each.path, each.size_bytes, each.mtime_ns, each.inode): each.sha256 for each in content.digests}
            if content is not None
            else {}
        )
        self._servings: Mapping[tuple[str, int], dict[str, Serving]] = {}
        self._altered: dict[tuple[str, int], set[FileStamp]] = {}
        self._unreadable: set[FileStamp] = set()
        self._woken = asyncio.Event()
        self._is_over = threading.Event()

    def __repr__(self) -> str:
        return f"<Provenance {len(self._digests)} in {self.file.path}>"

    def applied(self, rows: Mapping[str, Backend]) -> dict[str, Backend]:
        """The rows with what is known of the starts that they lead to; what is not known yet is looked at soon."""
        self._woken.set()
        return {name: self._completed(row) for name, row in rows.items()}

    def _completed(self, row: Backend) -> Backend:
        known = self._servings.get((row.name, row.endpoint.generation)) if row.endpoint is not None else None
        return msgspec.structs.replace(row, servings=known) if known else row

    async def run(self) -> None:
        """Look at engines that have started, and at whether files have changed, until cancelled."""
        with ThreadPoolExecutor(1, "provenance", _yield_to_others) as thread:
            try:
                while True:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._look_s):
                            await self._woken.wait()
                    self._woken.clear()
                    await self._look(thread)
                    await asyncio.sleep(REST_S)
            finally:
                self._is_over.set()

    async def _look(self, thread: ThreadPoolExecutor) -> None:
        starts = sorted(self._started(), key=_size_bytes)
        alive = {(start.name, start.generation) for start in starts}
        self._altered = {key: files for key, files in self._altered.items() if key in alive}
        loop = asyncio.get_running_loop()
        for start in starts:
            await loop.run_in_executor(thread, self._read, start)
            self._take(starts)

    def _take(self, starts: Iterable[Started]) -> None:
        known = {
            (start.name, start.generation): servings(
                start, self._digests, self._altered.get((start.name, start.generation), frozenset())
            )
            for start in starts
        }
        if known != self._servings:
            self._servings = known
            self._changed()

    def _read(self, start: Started) -> None:
        """Know the digests of all its files, or that they have changed since. Blocks, for minutes where they are large.
        In a thread; one at a time.
        """
        altered = self._altered.setdefault((start.name, start.generation), set())
        fresh: dict[FileStamp, str] = {}
        for stamp in _stamps(start):
            try:
                if stamp not in self._digests:
                    fresh[stamp] = stamped_digest(stamp, self._is_over.is_set, SHARE)
                    self._unreadable.discard(stamp)
                elif not is_unchanged(stamp):
                    raise Changed(stamp.path)
            except Changed:
                if stamp not in altered:
                    log.warning("a file has changed since the engine's start", backend=start.name, path=stamp.path)
                altered.add(stamp)
            except InterruptedError:
                return
            except OSError as exc:
                if stamp not in self._unreadable:
                    log.warning("file not readable; its digest is unknown", path=stamp.path, reason=exc.strerror)
                self._unreadable.add(stamp)
        if fresh:
            kept = list(self._digests.items())[-MOST + len(fresh) :]
            self._digests = dict([*kept, *fresh.items()])
            self.file.write(_File(1, [_Known(*stamp, digest) for stamp, digest in self._digests.items()]))


def _stamps(start: Started) -> list[FileStamp]:
    every = [start.sources, *start.adapters.values()] if start.sources is not None else []
    return [file.stamp for sources in every if sources is not None for file in sources.files]


def _size_bytes(start: Started) -> int:
    return sum(stamp.size_bytes for stamp in _stamps(start))


def _yield_to_others() -> None:
    """The thread's processor time is the last to be had (Linux; elsewhere threads cannot be told apart)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
