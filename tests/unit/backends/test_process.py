"""Processes of engines from the event loop: real ones, with their guards."""

from __future__ import annotations

import ast
import asyncio
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from backends.engine import Launch
from backends.process import ownership, process, temp_folder
from backends.process.ownership import TAG_VARIABLE
from backends.process.process import Process, spawn

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
# Has a child that ends as soon as its parent is gone, and so becomes nobody's it knows of.
FOLLOWED = """
import os, sys, time
reads, writes = os.pipe()
if os.fork() == 0:
    os.close(writes)
    print(os.getpid(), flush=True)
    os.read(reads, 1)
    os._exit(0)
time.sleep(600)
"""
# Holds a semaphore together with a child that has no tag.
UNMARKED = """
import multiprocessing, os, subprocess, sys, time
lock = multiprocessing.get_context("spawn").Lock()
from multiprocessing import resource_tracker
holds = resource_tracker.getfd()
argv = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(argv, env={}, pass_fds=[holds])
print("/dev/shm/sem." + lock._semlock.name.strip("/"), child.pid, flush=True)
time.sleep(600)
"""
# Leaves a file of shared memory and a temporary one, and says where; as after SIGKILL nobody tidies up.
SHARING = """
import os, time
from multiprocessing import resource_tracker, shared_memory
resource_tracker.register = lambda *_: None
memory = shared_memory.SharedMemory(create=True, size=64)
open(os.path.join(os.environ["TMPDIR"], "left"), "w").close()
print("/dev/shm/" + memory.name, os.environ["TMPDIR"] + "/left", flush=True)
time.sleep(600)
"""
SUPERVISOR = f"""
import asyncio, sys
from backends.engine import Launch
from backends.process.process import spawn

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


async def test_it_has_the_environment_it_was_given_and_its_tag() -> None:
    program = "print(open('/proc/self/environ').read().split('\\0')[:-1])"
    running = await spawn(python(program, ONLY="this"), "t:a:2")

    await running.gone()

    folders = [line.partition("=")[2] for line in ast.literal_eval(running.tail()[0]) if line.startswith("TMPDIR=")]
    parent, prefix = temp_folder.location("t:a:2", None)
    assert running.tail() == [str(["ONLY=this", f"TMPDIR={folders[0]}", f"{TAG_VARIABLE}=t:a:2"])]
    assert Path(folders[0]).parent == parent
    assert Path(folders[0]).name.startswith(prefix)


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
    def start(tag: str) -> subprocess.Popen[bytes]:
        program = "import time; print(1, flush=True); time.sleep(600)"
        env = {TAG_VARIABLE: tag}
        return subprocess.Popen([sys.executable, "-S", "-c", program], env=env, stdout=subprocess.PIPE)

    with start("mine:gpu:3") as ours, start("mine-too:gpu:3") as theirs:
        for popen in (ours, theirs):
            assert popen.stdout is not None
            popen.stdout.readline()

        assert await process.sweep("mine") == 1

        assert not is_there(ours.pid)
        assert theirs.poll() is None
        theirs.kill()


def test_an_engine_gets_its_gpus_by_their_uuids_in_the_order_of_the_bus() -> None:
    assert process.gpu_environment(["GPU-b", "GPU-a"]) == {
        "CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    assert process.gpu_environment([]) == {}


def test_an_engine_inherits_places_and_no_secrets() -> None:
    ours = {"PATH": "/bin", "HOME": "/h", "API_KEY": "secret", "MODELPORT_STATE": "/s", "HTTP_PROXY": "x", "LANG": "C"}

    assert process.inherited(ours) == {"PATH": "/bin", "HOME": "/h", "LANG": "C"}


# Holds a semaphore that no process has mapped any more; only Python's resource tracker knows of it.
SEMAPHORE = """
import multiprocessing, os, time
lock = multiprocessing.get_context("spawn").Lock()
print("/dev/shm/sem." + lock._semlock.name.strip("/"), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("victim", ["engine", "guard"])
async def test_semaphores_go_with_the_engine_whoever_is_killed(victim: str) -> None:
    running = await spawn(Launch((sys.executable, "-c", SEMAPHORE), {}), "semaphore:gpu:1")
    semaphore = await printed(running)
    assert is_file(semaphore)
    assert running.pid is not None

    os.kill(running.pid if victim == "engine" else running.guard_pid, signal.SIGKILL)
    await running.gone()

    assert not is_file(semaphore)
    assert ownership.tagged("semaphore:") == []


@pytest.mark.parametrize("victim", ["engine", "guard"])
async def test_shared_memory_and_temporary_files_go_with_the_engine_whoever_is_killed(victim: str) -> None:
    running = await spawn(Launch((sys.executable, "-c", SHARING), {}), "shared:gpu:1")
    memory, left = (await printed(running)).split()
    assert is_file(memory)
    assert is_file(left)
    assert running.pid is not None
    await seen(running, memory)

    os.kill(running.pid if victim == "engine" else running.guard_pid, signal.SIGKILL)
    await running.gone()

    assert not is_file(memory)
    assert not is_file(left)


async def test_what_ends_with_a_killed_guard_leaves_no_zombie() -> None:
    process.adopt_orphans()
    running = await spawn(Launch((sys.executable, "-S", "-c", FOLLOWED), {}), "followed:gpu:1")
    child = int(await printed(running))

    os.kill(running.guard_pid, signal.SIGKILL)
    await running.gone()

    assert not is_there(child)


async def test_a_process_without_a_tag_ends_with_a_killed_guard_and_does_not_keep_the_rest() -> None:
    process.adopt_orphans()
    running = await spawn(Launch((sys.executable, "-c", UNMARKED), {}), "unmarked:gpu:1")
    semaphore, child = (await printed(running)).split()
    assert is_file(semaphore)

    os.kill(running.guard_pid, signal.SIGKILL)
    await running.gone()

    assert not is_there(int(child))
    assert not is_file(semaphore)


async def seen(running: Process, shared: str) -> None:
    """Its guard has told of this file of shared memory."""
    async with asyncio.timeout(30):
        while shared not in running.shared:
            await asyncio.wait({running.exited}, timeout=0.01)


KEEPING = """
import os, pathlib, time
folder = pathlib.Path(os.environ["TMPDIR"])
(folder / "kept").touch()
print(folder, flush=True)
time.sleep(600)
"""


def is_file(path: str) -> bool:
    return Path(path).is_file()


def test_every_start_has_a_short_temporary_folder_of_its_own_while_the_one_before_is_in_use() -> None:
    """The engine before goes on serving while its successor starts; each used to lose its files to the other."""
    base = tempfile.mkdtemp(prefix="mp-t-", dir="/tmp")
    first = temp_folder.make("s:gpu:1", base)
    (Path(first.folder) / "socket").touch()

    second = temp_folder.make("s:gpu:2", base)
    again = temp_folder.make("s:gpu:2", base)

    assert len({first.folder, second.folder, again.folder}) == 3
    assert (Path(first.folder) / "socket").exists()
    assert len(second.folder) < 60
    assert stat.S_IMODE(Path(second.folder).stat().st_mode) == 0o700
    assert list(Path(second.folder).iterdir()) == []
    for each in (first, second, again):
        each.close()
    shutil.rmtree(base)


def test_what_nobody_uses_any_more_goes_at_the_next_start_of_its_backend_only() -> None:
    base = tempfile.mkdtemp(prefix="mp-t-", dir="/tmp")
    killed, other = temp_folder.make("s:gpu:1", base), temp_folder.make("s:other:1", base)
    for each in (killed, other):
        (Path(each.folder) / "left").touch()
        each.close()

    made = temp_folder.make("s:gpu:1", base)

    assert not Path(killed.folder).exists()
    assert Path(other.folder).exists()
    assert made.folder != killed.folder
    made.close()
    shutil.rmtree(base)


def test_a_temporary_folder_is_never_somebody_elses_link() -> None:
    base = Path(tempfile.mkdtemp(prefix="mp-t-", dir="/tmp"))
    (base / "theirs").mkdir()
    (base / "theirs" / "kept").touch()
    _, prefix = temp_folder.location("s:gpu:1", str(base))
    (base / f"{prefix}link").symlink_to(base / "theirs")

    made = temp_folder.make("s:gpu:1", str(base))

    assert Path(made.folder).resolve() != base / "theirs"
    assert not Path(made.folder).is_symlink()
    assert (base / "theirs" / "kept").exists()
    made.close()
    shutil.rmtree(base)


async def test_an_engine_keeps_its_temporary_files_while_another_start_of_it_begins_and_ends() -> None:
    first = await spawn(Launch((sys.executable, "-c", KEEPING), {}), "kept:gpu:1")
    [folder] = (await printed(first)).split()
    second = await spawn(Launch((sys.executable, "-c", KEEPING), {}), "kept:gpu:2")
    [other] = (await printed(second)).split()

    assert other != folder
    assert is_file(f"{folder}/kept")
    await first.stop(10)
    assert not is_file(f"{folder}/kept")
    assert is_file(f"{other}/kept")
    await second.stop(10)
    assert not is_file(f"{other}/kept")
