"""Processes of engines from the event loop: real ones, with their guards."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from backends import process
from backends.base import Launch
from backends.marks import MARK_VARIABLE
from backends.process import Process, spawn

DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
# Starts a process in a session of its own that ignores TERM, and says its pid.
WITH_ESCAPED = """
import subprocess, sys, time
deaf = "import signal, time; signal.signal(15, 1); print('up', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-S", "-c", deaf], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
SUPERVISOR = f"""
import asyncio, sys
from backends.base import Launch
from backends.process import spawn

async def main():
    engine = await spawn(Launch((sys.executable, "-S", "-c", {WITH_ESCAPED!r}), {{}}), "orphan:gpu:1")
    while not engine.tail():
        await asyncio.sleep(0.01)
    print(engine.pid, engine.guard_pid, *engine.tail(), flush=True)
    await engine.exited

asyncio.run(main())
"""


def python(program: str, **env: str) -> Launch:
    return Launch((sys.executable, "-S", "-c", program), env)


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def printed(running: Process) -> str:
    """Its first line."""
    async with asyncio.timeout(30):
        while not running.tail():
            await asyncio.wait({running.exited}, timeout=0.01)
    return running.tail()[0]


async def test_its_pid_exit_code_and_output_are_known() -> None:
    running = await spawn(
        python("import os, sys; print(os.getpid()); print('bye', file=sys.stderr); sys.exit(7)"), "t:a:1"
    )

    await running.gone()

    assert running.exited.result() == 7
    assert running.tail() == [str(running.pid), "bye"] or running.tail() == ["bye", str(running.pid)]
    assert not is_there(running.guard_pid)


async def test_it_has_the_environment_it_was_given_and_its_mark() -> None:
    program = "print(open('/proc/self/environ').read().split('\\0')[:-1])"
    running = await spawn(python(program, ONLY="this"), "t:a:2")

    await running.gone()

    assert running.tail() == [str(["ONLY=this", f"{MARK_VARIABLE}=t:a:2"])]


async def test_what_cannot_be_started_has_exited() -> None:
    running = await spawn(Launch(("/no/such/engine",), {}), "t:a:3")

    await running.gone()

    assert running.exited.result() == 127
    assert running.tail() == ["cannot start /no/such/engine: No such file or directory"]


async def test_a_stop_is_term_and_then_kill() -> None:
    running = await spawn(python(DEAF), "t:a:4")
    await printed(running)

    assert await running.stop(grace_s=0.05) == -signal.SIGKILL
    assert not is_there(running.guard_pid)


async def test_a_stop_of_one_that_listens_is_term_only() -> None:
    running = await spawn(python("import time; print('up', flush=True); time.sleep(600)"), "t:a:5")
    await printed(running)

    assert await running.stop(grace_s=60) == -signal.SIGTERM


async def test_when_the_guard_is_killed_nothing_of_the_engine_is_left() -> None:
    process.adopt_orphans()
    running = await spawn(python(WITH_ESCAPED), "t:a:6")
    escaped = int(await printed(running))
    assert running.pid is not None

    os.kill(running.guard_pid, signal.SIGKILL)
    await running.gone()

    assert running.exited.result() == -signal.SIGKILL
    assert [pid for pid in (running.pid, running.guard_pid, escaped) if is_there(pid)] == []


async def test_other_generations_of_the_same_engine_are_not_buried_with_one() -> None:
    one, eleven = [
        await spawn(python("import time; print(1, flush=True); time.sleep(600)"), f"t:b:{n}") for n in (1, 11)
    ]
    await printed(eleven)

    os.kill(one.guard_pid, signal.SIGKILL)
    await one.gone()

    assert not eleven.exited.done()
    await eleven.stop(grace_s=60)


def test_when_the_supervisor_is_killed_nothing_of_the_engine_is_left() -> None:
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        pids = [int(pid) for pid in supervisor.stdout.readline().split()]
        assert len(pids) == 3
        ends = [os.pidfd_open(pid) for pid in pids]

        supervisor.kill()

        for end in ends:
            assert select.select([end], [], [], 30)[0]
            os.close(end)


async def test_a_sweep_ends_what_an_earlier_life_left_and_nothing_else() -> None:
    def start(mark: str) -> subprocess.Popen[bytes]:
        program = "import time; print(1, flush=True); time.sleep(600)"
        env = {MARK_VARIABLE: mark}
        return subprocess.Popen([sys.executable, "-S", "-c", program], env=env, stdout=subprocess.PIPE)

    with start("mine:gpu:3") as ours, start("mine-too:gpu:3") as theirs:
        for popen in (ours, theirs):
            assert popen.stdout is not None
            popen.stdout.readline()

        assert await process.sweep("mine") == 1

        assert not is_there(ours.pid)
        assert theirs.poll() is None
        theirs.kill()


def test_an_engine_inherits_places_and_no_secrets() -> None:
    ours = {"PATH": "/bin", "HOME": "/h", "API_KEY": "secret", "MODELPORT_STATE": "/s", "HTTP_PROXY": "x", "LANG": "C"}

    assert process.inherited(ours) == {"PATH": "/bin", "HOME": "/h", "LANG": "C"}
