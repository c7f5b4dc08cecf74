"""An engine's first piece of work, its sleep and its wake-up; the results are reported as events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from backends.errors import BackendError, EngineFailed
from backends.lifecycle.events import SleepFailed, Slept, WarmedUp, WarmUpFailed

if TYPE_CHECKING:
    from app.supervisor.fleet.unit import Unit

log = structlog.get_logger()


async def warm_up(unit: Unit, generation: int, *, is_asleep: bool = False) -> None:
    """Wake it if it is asleep, make it do the smallest real piece of its work, and load its adapters."""
    try:
        if is_asleep and unit.engine.sleeper is not None:
            unit.adapters.begin()
            await unit.engine.sleeper.wake_up(unit.endpoint)
        await unit.engine.warm_up(unit.endpoint)
        await unit.adapters.settle(unit.endpoint)
    except BackendError as exc:
        unit.post(WarmUpFailed(generation, unit.runner.with_cause(exc.message), exc.is_final))
    except Exception:
        log.exception("warm-up failed", backend=unit.name)
        unit.post(WarmUpFailed(generation, "its warm-up failed; see the log"))
    else:
        await unit.measure()
        # Adapters that were ordered meanwhile; nothing is awaited after this.
        await unit.adapters.settle(unit.endpoint, again=False)
        unit.post(WarmedUp(generation))


async def sleep(unit: Unit, generation: int, level: int) -> None:
    """Put it to sleep."""
    try:
        if unit.engine.sleeper is None:
            raise EngineFailed(unit.name, "it cannot sleep")
        await unit.engine.sleeper.sleep(unit.endpoint, level)
    except BackendError as exc:
        log.warning("engine not put to sleep", backend=unit.name, reason=exc.message)
        unit.post(SleepFailed(generation, exc.message))
    except Exception:
        log.exception("engine not put to sleep", backend=unit.name)
        unit.post(SleepFailed(generation, "it could not be put to sleep; see the log"))
    else:
        unit.post(Slept(generation))
