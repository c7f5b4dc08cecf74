"""A piece of this process's life, profiled: by samples of its stack, or call by call. The result is a file."""

from __future__ import annotations

import contextlib
import cProfile
import json
import signal
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

EVERY_S: Final = 0.001  # of CPU time
_STANDARD: Final = f"{sysconfig.get_path('stdlib')}/"
_ROOT: Final = f"{Path(__file__).parent.parent}/"


@contextlib.contextmanager
def profiled(way: str, into: Path) -> Iterator[None]:
    """Profile what is done inside, in this thread, and write `{function: [calls, own, with what it called]}` as JSON.

    `way`: `samples`, where times are counts of samples and calls are 0; `calls`, where times are seconds.
    """
    with _sampled(into) if way == "samples" else _counted(into):
        yield


@contextlib.contextmanager
def _sampled(into: Path) -> Iterator[None]:
    own: Counter[CodeType] = Counter()
    both: Counter[CodeType] = Counter()

    def look(_: int, at: FrameType | None) -> None:
        if at is not None:
            own[at.f_code] += 1
        seen = set()
        while at is not None:
            seen.add(at.f_code)
            at = at.f_back
        both.update(seen)

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        _write({_name(code): (0.0, float(own[code]), float(count)) for code, count in both.items()}, into)


@contextlib.contextmanager
def _counted(into: Path) -> Iterator[None]:
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        _write({_name(it.code): (it.callcount, it.inlinetime, it.totaltime) for it in profile.getstats()}, into)


def _name(code: CodeType | str) -> str:
    if isinstance(code, str):
        return code
    file = code.co_filename.removeprefix(_ROOT).removeprefix(_STANDARD).rpartition("site-packages/")[2]
    return f"{file}:{code.co_firstlineno} {code.co_qualname}"


def _write(profile: dict[str, tuple[float, float, float]], into: Path) -> None:
    into.write_text(json.dumps(profile), encoding="utf-8")
