"""When a process was started, as `/metrics` tells it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from app.supervisor.metrics.processes import read


def test_the_start_of_a_process_is_told_in_seconds_since_1970_and_stays() -> None:
    before = time.time()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        folder = Path(f"/proc/{process.pid}")
        figures = [read(folder), read(folder)]
        process.communicate(b"\n")

    first, second = figures
    assert first is not None
    assert second is not None
    assert first.started_at == second.started_at
    assert abs(first.started_at - before) < 60  # the kernel's idea of its own start is whole seconds


def test_a_later_process_has_a_later_start() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        ours, theirs = read(Path(f"/proc/{os.getpid()}")), read(Path(f"/proc/{process.pid}"))
        process.communicate(b"\n")

    assert ours is not None
    assert theirs is not None
    assert ours.started_at < theirs.started_at
