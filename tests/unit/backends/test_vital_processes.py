"""The end of a process that an engine cannot go on without is noticed at once, whatever its server still answers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from backends.process import guard, vital_processes

PARENT = """
import subprocess, sys, time
children = [subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"],
                             stdout=subprocess.PIPE) for _ in range(2)]
for child in children: child.stdout.readline()
print(*(child.pid for child in children), flush=True)
time.sleep(600)
"""


@pytest_asyncio.fixture
async def family() -> AsyncIterator[tuple[int, list[int]]]:
    """A process, and two below it."""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    children = [int(word) for word in (await parent.stdout.readline()).split()]
    yield parent.pid, children
    for pid in guard.descendants(parent.pid):
        os.kill(pid, signal.SIGKILL)
    parent.kill()
    await parent.wait()


async def test_the_end_of_one_of_them_is_reported_by_its_title(family: tuple[int, list[int]]) -> None:
    root, children = family
    waiting = asyncio.create_task(vital_processes.loss(root, {"something else": "no", sys.executable: "a worker died"}))
    await asyncio.wait({waiting}, timeout=1)
    assert not waiting.done()

    os.kill(children[1], signal.SIGKILL)

    assert await asyncio.wait_for(waiting, 20) == "a worker died"


@pytest.mark.parametrize("titles", [{}, {"VLLM::EngineCore": "its core process died"}])
async def test_where_none_has_such_a_title_nothing_is_reported(
    family: tuple[int, list[int]], titles: Mapping[str, str]
) -> None:
    root, children = family
    waiting = asyncio.create_task(vital_processes.loss(root, titles))

    os.kill(children[0], signal.SIGKILL)
    await asyncio.wait({waiting}, timeout=0.5)

    assert not waiting.done()
    waiting.cancel()
