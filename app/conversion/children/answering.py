"""What the scripts beside this file share: how they answer whoever started them (backends/toolenv/child.py).

They are started with `python -I`, which leaves their folder out of where modules are looked for: they put it there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

LOOK_S = 0.3  # between looks at how much is written


def say(message: Mapping[str, Any]) -> None:
    """One line for whoever started this."""
    print(f"\n{json.dumps(message)}", flush=True)  # behind a question that a library may have printed


def progress(done: int, total: int) -> None:
    """Say how much of the work is done, in bytes."""
    say({"progress": {"done": done, "total": max(total, done, 1)}})


@contextlib.contextmanager
def growth_reported(size: Callable[[], int], total: int) -> Iterator[None]:
    """While inside, tell again and again how much is written. An OSError of `size` means: not known yet."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(LOOK_S):
            with contextlib.suppress(OSError):
                progress(size(), total)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def of_machine(exc: BaseException) -> str | None:
    """What the machine lacks, as the rest of a sentence; None where it is something else."""
    if isinstance(exc, MemoryError):
        return "there is not enough memory"
    # What numpy says of a full disk has no number: "4096 requested and 0 written".
    is_full = isinstance(exc, OSError) and (exc.errno in (errno.ENOSPC, errno.EDQUOT) or "requested and" in str(exc))
    return "the disk became full" if is_full else None


def answer(work: Callable[[Mapping[str, Any]], Any], sentence: Callable[[BaseException], str]) -> None:
    """Do the work that standard input asks for, say its result or why there is none, and end the process."""
    request = json.load(sys.stdin)
    try:
        said = {"result": work(request)}
    except Exception as exc:  # the top of the script
        logging.exception("no result")
        said = {"error": of_machine(exc) or sentence(exc)}
    say(said)
    sys.stdout.flush()
    os._exit(0)  # torch's threads take seconds to end
