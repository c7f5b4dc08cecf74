"""Requests that need a backend: it is started for them, they wait, and are admitted or refused."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from app.ipc import NO_CLAIM, Claim
from app.supervisor.admission.gate import AdmissionGate, Permit, QueueFull
from app.supervisor.admission.queue_counts import QueueCounts
from app.supervisor.admission.shares import Claimant
from app.supervisor.relays.table_rows import row
from backends.endpoint import State
from backends.lifecycle.events import Wanted
from backends.lifecycle.phases import Phase

if TYPE_CHECKING:
    from app.supervisor.fleet.event_loop import EventLoop
    from app.supervisor.fleet.unit import Unit


@dataclass(frozen=True, slots=True)
class WaitOutcome:
    """How the wait for a backend ended. `reason`: why it is not ready. `is_full`: too many requests wait already.

    `permit`: to be released when the request is over; None where the backend has no limit.
    """

    is_ready: bool
    reason: str | None = None
    retry_after_s: float = 5.0
    is_full: bool = False
    permit: Permit | None = field(default=None, compare=False)


def _advice_s(left_s: float | None) -> float:
    """For `Retry-After`: what is known of the wait, in whole seconds, at most two minutes."""
    return 5.0 if left_s is None else float(max(1, min(120, math.ceil(left_s))))


class WaitList:
    """The requests that wait for a unit to serve: a future each, done when it is to look again."""

    def __init__(self) -> None:
        self._waiting: dict[Unit, set[asyncio.Future[None]]] = {}

    def count(self, unit: Unit) -> int:
        """How many wait for it."""
        return len(self._waiting.get(unit, ()))

    def join(self, unit: Unit) -> asyncio.Future[None]:
        """One more waits for it, until it leaves."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(unit, set()).add(waiter)
        return waiter

    def leave(self, waiter: asyncio.Future[None]) -> None:
        """It waits no longer, for whichever unit."""
        for waiting in self._waiting.values():
            waiting.discard(waiter)
        self._waiting = {unit: waiting for unit, waiting in self._waiting.items() if waiting}

    def wake(self, unit: Unit) -> None:
        """Whoever waits for it is to look again."""
        for waiter in self._waiting.get(unit, ()):
            if not waiter.done():
                waiter.set_result(None)

    def hand_over(self, unit: Unit, replacement: Unit) -> None:
        """Whoever waits for the unit waits for its replacement from now on."""
        self._waiting.setdefault(replacement, set()).update(self._waiting.pop(unit, ()))


class Waiters:
    """Requests that wait for a backend to serve, and then for their turn at it, where it has a limit."""

    def __init__(self, event_loop: EventLoop, now: Callable[[], float], wait_s: float) -> None:
        self.wait_s = wait_s
        self._event_loop = event_loop
        self._now = now
        self._gates: dict[str, AdmissionGate] = {}  # by backend, of those that have a limit
        self._counts: dict[str, QueueCounts] = {}  # the same, and of those that had one
        event_loop.on_promoted = self._promoted

    def waiting(self, backend: str) -> int:
        """How many requests wait for it to serve, or for their turn at it."""
        unit, gate = self._event_loop.units.get(backend), self._gates.get(backend)
        for_start = self._event_loop.waiting.count(unit) if unit is not None else 0
        return for_start + (gate.waiting if gate is not None else 0)

    def is_full(self, backend: str) -> bool:
        """Whether it has as many requests as it works on at a time."""
        gate = self._gates.get(backend)
        return gate is not None and gate.is_full

    def counts(self, unit: Unit) -> QueueCounts | None:
        """What its queue has seen, from the first request on; None where it has no limit."""
        if unit.config.limit() is None:
            return self._counts.get(unit.name)
        return self._counts.setdefault(unit.name, QueueCounts())

    async def wanted(self, backend: str, claim: Claim = NO_CLAIM) -> WaitOutcome:
        """Make it serve, and admit one request to it. Returns when it is admitted, or when it is known that it will not
        be. A backend that is ready has been published before.
        """
        came = self._now()
        outcome = await self._made_ready(backend)
        while outcome.is_ready and (limit := (unit := self._event_loop.units[backend]).config.limit()) is not None:
            gate, counts = self._gate(backend, limit), self._counts.setdefault(backend, QueueCounts())
            wait_s = self._limit_s(unit)
            if claim.within_s is not None:
                wait_s = min(wait_s, max(came + claim.within_s - self._now(), 0.0))
            try:
                permit = await gate.enter(unit.config.max_waiting, wait_s, Claimant(claim.key, claim.is_batch))
            except QueueFull as exc:
                counts.refuse(is_late=exc.is_late)
                return WaitOutcome(False, str(exc), _advice_s(exc.retry_after_s), is_full=True)
            unit = self._event_loop.units.get(backend, unit)
            if unit.life.state is State.READY and self._gates.get(backend) is gate:
                counts.admitted(permit.waited_s, is_batch=claim.is_batch)
                return replace(outcome, permit=permit)
            permit.release(is_used=False)  # it ended while the request waited, or a replacement has its name
            outcome = await self._made_ready(backend)
        return outcome

    def _gate(self, backend: str, limit: int) -> AdmissionGate:
        gate = self._gates.get(backend)
        if gate is None:
            gate = self._gates[backend] = AdmissionGate(limit, self._now)
        gate.resize(limit)
        return gate

    def _promoted(self, backend: str) -> None:
        """Requests at the engine before do not count at the new one; those that wait go on to the new gate."""
        gate = self._gates.pop(backend, None)
        if gate is not None:
            gate.dismiss()

    async def _made_ready(self, backend: str) -> WaitOutcome:
        unit = self._event_loop.units.get(backend)
        if unit is None:
            return WaitOutcome(False, "it is not configured any more")
        if unit.life.state is State.READY:
            return WaitOutcome(True)
        if self._is_ending():
            return WaitOutcome(False, "the gateway is shutting down")
        refusal = self._refusal(unit)
        if refusal is not None:
            self._event_loop.scheduler.request(unit)  # whoever is sent away comes back
        waiting = self._event_loop.waiting
        waiter = waiting.join(unit) if refusal is None else None
        try:
            for one in self._event_loop.replicas(unit.name):
                self._event_loop.post(one, Wanted())
            if waiter is not None and unit.is_pending and not self._is_ending():
                await asyncio.wait({waiter}, timeout=self._limit_s(unit))
        finally:
            if waiter is not None:
                waiting.leave(waiter)
            self._event_loop.leases_changed()
        unit = self._event_loop.units.get(backend, unit)
        if self._is_ending() and unit.life.state is not State.READY:
            return WaitOutcome(False, "the gateway is shutting down")
        return self._outcome(unit) if refusal is None or not unit.is_pending else refusal

    def _is_ending(self) -> bool:
        return self._event_loop.is_ending or self._event_loop.is_closing

    def _limit_s(self, unit: Unit) -> float:
        own = unit.config.max_wait_s
        return self.wait_s if own is None else own

    def _refusal(self, unit: Unit) -> WaitOutcome | None:
        """Why one more request is not to wait for it; None when it may."""
        if unit.life.state is State.READY or unit.config.as_managed() is None:
            return None
        left_s = unit.expected_s(self._now())
        waiting = self._event_loop.waiting.count(unit)
        if waiting >= unit.config.max_waiting:
            return WaitOutcome(False, f"{waiting} requests wait for it already", _advice_s(left_s))
        if left_s is not None and left_s > self._limit_s(unit):
            now = f" ({unit.life.reason})" if unit.life.phase is Phase.FETCHING and unit.life.reason else ""
            return WaitOutcome(False, f"it is starting, which takes about {left_s:.0f} s more{now}", _advice_s(left_s))
        return None

    def _outcome(self, unit: Unit) -> WaitOutcome:
        now = row(unit)
        if now.state is State.READY:
            return WaitOutcome(True)
        starting = now.waits_for or ("it waits for room" if unit.life.is_queued else "it is still starting")
        reasons = {State.STARTING: starting, State.STOPPING: "it is being stopped", State.SLEEPING: "it sleeps"}
        return WaitOutcome(False, now.reason or reasons.get(now.state, "it is stopped"), now.retry_after_s)
