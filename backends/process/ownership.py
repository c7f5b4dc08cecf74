"""The tag that every process of an engine carries in its environment: `STATE:BACKEND:GENERATION`, or
`STATE:BACKEND:fetch-…` for the process that downloads a model.

By it, whatever outlived a killed guard or an earlier supervisor is found and ended (Linux; elsewhere there is no way
to look into another process's environment).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from backends.process import guard

TAG_VARIABLE: Final = "MODELPORT_MARK"  # under this name also in the processes of earlier releases
_KILL_S: Final = 5.0


def kill_tagged(tag: str, pid: int | None = None) -> int:
    """KILL every process whose tag begins with `tag`, and `pid`'s process group; reap those that are our children.

    A tag ends with NUL in the environment, so `tag + NUL` means exactly this one. Returns how many processes there
    were. Blocks, for 5 s at most: then it gives up on those that do not die.
    """
    seen = set() if pid is None else {pid}
    tidy_at, end = time.monotonic() + guard.TIDY_S, time.monotonic() + _KILL_S
    while (now := time.monotonic()) < end:
        alive = [*tagged(tag), *(() if pid is None else _group(pid))]
        seen.update(alive)
        others = [one for one in alive if not guard.is_tracker(one)]
        if others:
            tidy_at = min(now + guard.TIDY_S, end - 1.0)  # a tracker begins when it is alone
        is_tidying = now < tidy_at and len(others) < len(alive)
        if pid is not None and not is_tidying:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        for one in others if is_tidying else alive:
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)
        # Of its group are also those that had died before they could be seen here, and became our children only then.
        groups = () if pid is None else (-pid,)
        if not _reap([*seen, *groups]) and not alive:
            break
        time.sleep(0.01)
    return len(seen)


def _group(leader: int) -> list[int]:
    """The living processes of this group: some write a title over their environment, and so over their tag."""
    members = []
    with contextlib.suppress(OSError):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    state, _, group = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:3]
                    if int(group) == leader and state not in (b"Z", b"X"):
                        members.append(int(entry.name))
    return members


def _reap(pids: Iterable[int]) -> bool:
    """Take the exits of our children among these (negative: of that group); whether one of them still runs."""
    is_any_running = False
    for pid in pids:
        with contextlib.suppress(OSError):  # not our child, or taken before
            while (taken := os.waitpid(pid, os.WNOHANG)[0]) != 0:
                if taken == pid:
                    break
            is_any_running |= taken == 0
    return is_any_running


def tagged(tag: str) -> list[int]:
    """Every process but this one whose tag begins with `tag`, by its id. Empty where there is no /proc."""
    wanted = b"\0" + f"{TAG_VARIABLE}={tag}".encode()
    pids = []
    with contextlib.suppress(OSError):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if wanted in b"\0" + (entry / "environ").read_bytes():
                        pids.append(int(entry.name))
    return pids
