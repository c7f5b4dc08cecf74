"""Several looks at once, of which none can hold up the others: a disk that hangs, a program that never answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger()

# What a look is for: the check that needs it, and what is looked at.
Aim = tuple[str, str]
Jobs = dict[Aim, Callable[[], Any]]


def all_within(seconds: float, jobs: Jobs) -> tuple[dict[Aim, Any], tuple[Aim, ...]]:
    """What these return, by their aims, and the aims of those that did not return within `seconds`, or that failed
    (the log says why). Each runs in a thread that ends with the process, whatever it waits for.
    """
    results: dict[Aim, Any] = {}

    def run(aim: Aim, job: Callable[[], Any]) -> None:
        try:
            results[aim] = job()
        except Exception:
            log.exception("the doctor could not look", check=aim[0], what=aim[1])

    threads = [threading.Thread(target=run, args=(aim, job), daemon=True) for aim, job in jobs.items()]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    answered = dict(results)
    return answered, tuple(aim for aim in jobs if aim not in answered)
