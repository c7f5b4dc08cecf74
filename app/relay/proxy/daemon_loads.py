"""How long models of daemons (Ollama) take to load, and whether one is loaded again and again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger()

# A daemon reports a load of a millisecond when it had nothing to load.
COLD_S: Final = 0.1
OFTEN: Final = 3
WITHIN_S: Final = 300.0
WHY: Final = (
    "another client of the daemon asks for it with another `shift` or `num_ctx`, or the models that are asked for do "
    "not fit into memory together"
)


class DaemonLoads:
    """What daemons report, by backend and model. `now`: a clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._took: dict[tuple[str, str], float] = {}
        self._times: dict[tuple[str, str], deque[float]] = {}

    def took(self, backend: str, model: str) -> float | None:
        """The seconds that its last load took; None where none was reported."""
        return self._took.get((backend, model))

    def note(self, backend: str, model: str, load_s: float | None) -> None:
        """A response reports how long its model took to load. A model that was loaded OFTEN times within WITHIN_S is
        logged once, and again once it has been loaded as often again."""
        if load_s is None or load_s < COLD_S:
            return
        key = (backend, model)
        self._took[key] = load_s
        times = self._times.setdefault(key, deque(maxlen=OFTEN))
        times.append(self._now())
        if len(times) == OFTEN and times[-1] - times[0] <= WITHIN_S:
            log.warning("a model is loaded again and again", backend=backend, model=model, load_s=load_s, why=WHY)
            times.clear()
