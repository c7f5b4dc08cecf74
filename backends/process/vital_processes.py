"""The end of a process without which its engine cannot go on (the core of a vLLM, a worker), noticed at once.

Its server may answer for seconds after that, its health check included. Linux only (pidfd); elsewhere the probes find
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from backends.process.guard import descendants


async def loss(root: int, titles: Mapping[str, str]) -> str:
    """Wait until one of the processes that are below `root` now, and whose title begins with one of `titles`, ends;
    returns what `titles` says that this means. Waits for ever where there is no such process, or no pidfd.
    """
    loop = asyncio.get_running_loop()
    lost: asyncio.Future[str] = loop.create_future()
    watched: list[int] = []
    try:
        for pid, meaning in (await asyncio.to_thread(_titled, root, titles)).items():
            try:
                watched.append(os.pidfd_open(pid))
            except ProcessLookupError:
                _report(lost, meaning)
            except (AttributeError, OSError):
                continue
            else:
                loop.add_reader(watched[-1], _report, lost, meaning)
        return await lost
    finally:
        for descriptor in watched:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def _report(lost: asyncio.Future[str], meaning: str) -> None:
    if not lost.done():
        lost.set_result(meaning)


def _titled(root: int, titles: Mapping[str, str]) -> dict[int, str]:
    """The processes with one of these titles, with what the end of each means."""
    meanings = {}
    for pid in descendants(root) if titles else ():
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            meaning = next((text for begin, text in titles.items() if title.startswith(begin)), None)
            if meaning is not None:
                meanings[pid] = meaning
    return meanings
