"""Which targets are passed over, over all relays: who failed, hung or was slow beside others that serve the same, until
a trial shows that it is well."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import msgspec
import structlog

from app.ipc import Suspicion
from app.supervisor.ejection import trial
from app.supervisor.ejection.ejected_model import EjectedModel
from app.supervisor.ejection.trial import Trial
from app.supervisor.fleet.status import BackendStatus
from app.table import Backend
from backends.endpoint import Endpoint, State

log = structlog.get_logger()

REASONS: Final = ("failures", "share", "silent", "slow")
# These are so; the others may only seem so, and are tried out before anything is done.
SURE: Final = frozenset({"failures", "share"})
FIRST_PAUSE_S: Final = 5.0
MAX_PAUSE_S: Final = 300.0
FORGIVEN_S: Final = 600.0  # who is ejected again within this time pauses twice as long
TRIAL_S: Final = 30.0
LEAST_S: Final = 2.0  # that a trial of a suspect may take, however quick the others are
PATIENCE: Final = 4.0  # times as long as the trial of another; is_slow would say so of less

Ask = Callable[[Endpoint, str, str, float], Awaitable[Trial]]
TargetName = tuple[str, str]  # a backend, and its own name for a model


@dataclass(slots=True)
class _Ejected:
    suspicion: Suspicion
    since: float
    pause_s: float
    tries_at: float


class Ejections:
    """All of them; in the event loop. `rows`: every backend as it is now; `publish`: tell the relays. `is_on`: whether
    any is to be passed over at all; `is_full`: whether a backend works on as many requests as it can.

    Never the last: who has no sibling that serves and is not ejected stays. One that starts anew begins anew.
    """

    def __init__(
        self,
        rows: Callable[[], Mapping[str, Backend]],
        publish: Callable[[], object],
        ask: Ask = trial.ask,
        now: Callable[[], float] = time.monotonic,
        first_pause_s: float = FIRST_PAUSE_S,
        is_on: Callable[[], bool] = lambda: True,
        is_full: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._rows = rows
        self._publish = publish
        self._ask = ask
        self._now = now
        self._first_pause_s = first_pause_s
        self._is_on = is_on
        self._is_full = is_full
        self._out: dict[TargetName, _Ejected] = {}
        self._last: dict[TargetName, tuple[float, float]] = {}  # when it came back, and how long it had paused
        self._tasks: dict[TargetName, asyncio.Task[None]] = {}
        self._counts: dict[str, Counter[str]] = {}

    def __repr__(self) -> str:
        return f"<Ejections {sorted(self._out)}>"

    async def aclose(self) -> None:
        """Try nobody any more."""
        self._out.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def suspect(self, suspicion: Suspicion) -> None:
        """A relay has seen it do worse than its siblings."""
        target = (suspicion.backend, suspicion.model)
        if self._endpoint(target, suspicion.generation) is None or not self._well(suspicion.siblings):
            return
        ejected = self._out.get(target)
        if ejected is not None and ejected.suspicion.generation != suspicion.generation:
            del self._out[target]  # it was about an earlier start
            self._tasks.pop(target).cancel()
        if target in self._tasks or not self._is_on():
            return
        if suspicion.reason in SURE:
            self._eject(target, suspicion)
        else:
            self._start(target, partial(self._try_out, target, suspicion))

    # -- what is shown

    def applied(self, rows: Mapping[str, Backend]) -> dict[str, Backend]:
        """These rows, and whom requests pass over."""
        out: dict[str, dict[str, str]] = {}
        for (backend, model), ejected in self._out.items() if self._is_on() else ():
            endpoint = rows[backend].endpoint if backend in rows else None
            if endpoint is not None and endpoint.generation == ejected.suspicion.generation:
                out.setdefault(backend, {})[model] = ejected.suspicion.evidence
        return {
            name: msgspec.structs.replace(row, ejected=out[name]) if name in out else row for name, row in rows.items()
        }

    def shown(self, statuses: Iterable[BackendStatus]) -> list[BackendStatus]:
        """What is reported of these backends, with their ejections."""
        return [
            replace(status, ejected=self.models(status.name), ejections=self._reasons(status.name))
            for status in statuses
        ]

    def models(self, backend: str) -> tuple[EjectedModel, ...]:
        """The models that requests pass this backend over for."""
        now = self._now()
        return tuple(
            EjectedModel(
                model,
                ejected.suspicion.reason,
                ejected.suspicion.evidence,
                round(now - ejected.since, 3),
                round(max(0.0, ejected.tries_at - now), 3),
            )
            for (name, model), ejected in self._out.items()
            if name == backend and self._is_out((name, model))
        )

    def _reasons(self, backend: str) -> dict[str, int]:
        counts = self._counts.get(backend, Counter())
        return {reason: counts[reason] for reason in REASONS}

    # -- within

    def _start(self, target: TargetName, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks[target] = asyncio.create_task(self._guarded(target, work))

    async def _guarded(self, target: TargetName, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            log.exception("an ejected backend could not be tried", backend=target[0], model=target[1])
        finally:
            if self._tasks.get(target) is asyncio.current_task():
                del self._tasks[target]
                if self._out.pop(target, None) is not None:
                    self._publish()

    async def _try_out(self, target: TargetName, suspicion: Suspicion) -> None:
        """It seems to hang or to be slow: is it so for the same small request that a sibling answers?"""
        failure = await self._failure(target, suspicion)
        if failure is None or not self._well(suspicion.siblings):
            log.debug("backend is well", backend=target[0], model=target[1], suspected=suspicion.evidence)
            return
        suspicion = msgspec.structs.replace(suspicion, evidence=f"{suspicion.evidence}; {failure}")
        self._note(target, suspicion)
        await self._bring_back(target)

    def _eject(self, target: TargetName, suspicion: Suspicion) -> None:
        self._note(target, suspicion)
        self._start(target, partial(self._bring_back, target))

    def _note(self, target: TargetName, suspicion: Suspicion) -> None:
        now = self._now()
        back_at, paused_s = self._last.get(target, (-FORGIVEN_S, 0.0))
        again = now - back_at < FORGIVEN_S and paused_s > 0
        pause_s = min(2 * paused_s, MAX_PAUSE_S) if again else self._first_pause_s
        self._out[target] = _Ejected(suspicion, now, pause_s, now + pause_s)
        self._counts.setdefault(target[0], Counter())[suspicion.reason] += 1
        log.warning(
            "backend ejected",
            backend=target[0],
            model=target[1],
            reason=suspicion.reason,
            evidence=suspicion.evidence,
            tried_in_s=pause_s,
        )
        self._publish()

    async def _bring_back(self, target: TargetName) -> None:
        """Try it after a pause, and after longer ones while it is not well; returns when it may serve again."""
        ejected = self._out[target]
        while True:
            await asyncio.sleep(ejected.pause_s)
            if not self._is_out(target):
                return
            failure = await self._failure(target, ejected.suspicion)
            if failure is None:
                break
            ejected.pause_s = min(2 * ejected.pause_s, MAX_PAUSE_S)
            ejected.tries_at = self._now() + ejected.pause_s
            log.info(
                "backend still ejected",
                backend=target[0],
                model=target[1],
                reason=failure,
                tried_in_s=ejected.pause_s,
            )
        self._last[target] = (self._now(), ejected.pause_s)
        out_s = round(self._now() - ejected.since, 3)
        log.info("backend back after ejection", backend=target[0], model=target[1], out_s=out_s)

    async def _failure(self, target: TargetName, suspicion: Suspicion) -> str | None:
        """What a trial shows to be wrong with it, None where it is well. How long it may take is measured at a
        sibling, where it is suspected to be slow; where no sibling is well, that says nothing of it."""
        endpoint = self._endpoint(target, suspicion.generation)
        if endpoint is None:
            return None
        other: Trial | None = None
        if suspicion.reason not in SURE:
            for sibling in self._well(suspicion.siblings):
                there = self._endpoint(sibling)
                other = await self._ask(there, sibling[1], suspicion.operation, TRIAL_S) if there is not None else None
                if other is not None and other.failure is None:
                    break
            else:
                if target not in self._out:
                    return None
        # Where all its places are taken, the trial has to wait for one: that takes time at one that is well, too.
        is_measured = other is not None and other.failure is None and not self._is_full(target[0])
        limit_s = max(LEAST_S, PATIENCE * other.seconds) if other is not None and is_measured else TRIAL_S
        own = await self._ask(endpoint, target[1], suspicion.operation, limit_s)
        if own.failure is not None:
            return own.failure
        if other is not None and is_measured and trial.is_slow(own, other):
            return f"it took {own.seconds:.1f} s for what takes another {other.seconds:.2f} s"
        return None

    def _endpoint(self, target: TargetName, generation: int | None = None) -> Endpoint | None:
        """Where it is served now; None where it is not, or by another start than that."""
        row = self._rows().get(target[0])
        endpoint = row.endpoint if row is not None and row.state is State.READY else None
        return endpoint if endpoint is not None and generation in (None, endpoint.generation) else None

    def _well(self, targets: Iterable[TargetName]) -> Sequence[TargetName]:
        """Those that serve and are not ejected."""
        return [each for each in targets if not self._is_out(each) and self._endpoint(each) is not None]

    def _is_out(self, target: TargetName) -> bool:
        """Whether its present start is passed over."""
        ejected = self._out.get(target)
        return (
            ejected is not None and self._is_on() and self._endpoint(target, ejected.suspicion.generation) is not None
        )
