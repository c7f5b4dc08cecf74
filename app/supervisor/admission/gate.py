"""How many requests an engine gets at a time: as many as it works on; the rest waits here for its turn.

An engine that queues requests itself notices late that a client has gone: llama.cpp only once a slot takes the request
up (docs/decisions.md, "Admission"). A request that waits here is dropped as soon as its client leaves, and one that
would not have its turn in time is told so when it comes.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable
from typing import Final

from app.supervisor.admission.service_times import ServiceTimes
from app.supervisor.admission.shares import Claimant, FairShares

# What a request is taken to last until one has ended.
GUESS_S: Final = 1.0
# A key may be ahead of its share by the longest wait, and by this part of a request: whole requests have to fit.
BURST: Final = 0.2
# Of the longest wait: a place that is expected just in time often comes too late.
IN_TIME: Final = 0.9
ANYBODY: Final = Claimant(None, is_batch=False)


class QueueFull(Exception):
    """There is no permit, and none to wait for. `retry_after_s`: when there may be one; None: not known. `is_late`: not
    because too many wait, but because its turn would not come in time."""

    def __init__(self, message: str, retry_after_s: float | None, *, is_late: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.is_late = is_late


class Permit:
    """One request may be at the engine, until `release`. `waited_s`: how long it took to get."""

    def __init__(self, gate: AdmissionGate, claimant: Claimant, charged_s: float, waited_s: float) -> None:
        self.claimant = claimant
        self.charged_s = charged_s
        self.waited_s = waited_s
        self.since = gate.now()
        self._gate: AdmissionGate | None = gate

    def release(self, *, is_used: bool = True) -> None:
        """The request is over; may be called again. Not `is_used`: it was never sent, so it cost the engine nothing."""
        if self._gate is not None:
            self._gate.returned(self, is_used=is_used)
            self._gate = None


class _Waiter:
    """A request in the queue. `until`: when its time is over. `charged_s`: what its key owes for it already."""

    def __init__(self, claimant: Claimant, charged_s: float, since: float, until: float) -> None:
        self.turn: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self.claimant = claimant
        self.charged_s = charged_s
        self.since = since
        self.until = until


class AdmissionGate:
    """The permits of one backend, over all relays. `now`: a clock in seconds."""

    def __init__(self, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._limit = limit
        self._running: dict[Permit, None] = {}
        # In the order in which they came; those of one claimant behind each other.
        self._lines: dict[Claimant, collections.OrderedDict[_Waiter, None]] = {}
        self._queue: collections.OrderedDict[_Waiter, None] = collections.OrderedDict()
        self._shares = FairShares()
        self._times = ServiceTimes()
        self._paid_at = now()
        self._in_vain_s = 0.0  # the longest time that has ended since the latest request did

    def __repr__(self) -> str:
        return f"<AdmissionGate {len(self._running)}/{self._limit} waiting={self.waiting}>"

    @property
    def waiting(self) -> int:
        """Requests that wait for a permit."""
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether all permits are given out."""
        return len(self._running) >= self._limit

    def resize(self, limit: int) -> None:
        """Give out so many permits from now on; requests that have one keep it."""
        if limit != self._limit:
            self._pay()
            self._limit = limit
            self._admit()

    def dismiss(self) -> None:
        """Let all who wait enter at once: there is nothing behind this gate any more."""
        self.resize(len(self._running) + len(self._queue))

    async def enter(self, max_waiting: int, wait_s: float, claimant: Claimant = ANYBODY) -> Permit:
        """The next permit; QueueFull when too many wait already, or when none comes, or would come, within `wait_s`."""
        self._pay()
        if len(self._running) < self._limit and not self._queue:
            self._shares.charge(claimant, self._service_s())
            return self._permit(claimant, self._service_s(), 0.0)
        self._check_time(claimant, wait_s)
        self._make_room(claimant, max_waiting)
        waiter = self._join(claimant, wait_s)
        try:
            async with asyncio.timeout(wait_s):
                return await waiter.turn
        except BaseException as exc:
            turn = waiter.turn
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().release(is_used=False)  # it came in the moment of leaving
            else:
                self._leave(waiter)
            if isinstance(exc, TimeoutError):
                self._in_vain_s = max(self._in_vain_s, wait_s)
                message = f"it had no place for the request within {round(wait_s, 2):g} s"
                raise QueueFull(message, self._expected_s(), is_late=True) from exc
            raise

    def returned(self, permit: Permit, *, is_used: bool) -> None:
        """A permit came back."""
        self._pay()
        del self._running[permit]
        held_s = self.now() - permit.since if is_used else 0.0
        if is_used:
            self._in_vain_s = 0.0
            self._times.note(held_s)
        self._shares.charge(permit.claimant, held_s - permit.charged_s)
        self._admit()

    # -- who may wait

    def _check_time(self, claimant: Claimant, wait_s: float) -> None:
        """QueueFull where its turn would come too late: its key is too far ahead of its share, or too many are before
        it; or where it could only come because somebody else's does not. It is refused then, and not who waits: except
        for those of a key that has filled the queue while it was alone."""
        now, expected_s = self.now(), self._expected_s()
        too_far_s = self._ahead_s(claimant) - wait_s - BURST * self._service_s()
        is_shared = self._times.is_known and not self._shares.is_alone(claimant)
        if too_far_s > 0.0 and is_shared and expected_s is not None:
            share = "requests with this key have their share of it"
            message = f"{share}, and no place would be free within {round(wait_s, 2):g} s"
            raise QueueFull(message, max(expected_s, too_far_s), is_late=True)
        held = [now - permit.since for permit in self._running]
        is_stuck = self._times.mean_s is None and wait_s <= self._in_vain_s and len(self._queue) >= self._limit
        # Its turn comes by its share; then those who have more time have to have theirs, too.
        before = self._before(claimant)
        is_late = is_stuck or before + 1 > self._times.places(held, wait_s * IN_TIME)
        if not is_late and before < len(self._queue):
            all_s = max([wait_s, *(waiter.until - now for waiter in self._queue)])
            is_crowded = len(self._queue) + 1 > self._times.places(held, all_s * IN_TIME)
            is_late = is_crowded and not self._pushed_out(claimant)
        if is_late:
            raise QueueFull(f"no place would be free within {round(wait_s, 2):g} s", expected_s, is_late=True)

    def _before(self, claimant: Claimant) -> float:
        """How many of those who wait have their turn before one who came now."""
        mine = len(self._lines.get(claimant, ()))
        if not self._times.is_known:
            return len(self._queue)
        return max(mine, min(len(self._queue), self._ahead_s(claimant) * self._limit / self._service_s()))

    def _pushed_out(self, claimant: Claimant) -> bool:
        """Whether a place in the queue was taken from a key which has so much more than its share now that the latest
        of its requests would have its turn too late anyway."""
        greediest = max(self._lines, key=self._ahead_s)
        if greediest == claimant or not self._times.is_known:
            return False
        service_s = self._service_s()
        self._shares.charge(claimant, service_s)  # with whom it would have to share
        latest = next(reversed(self._lines[greediest]))
        own_s = latest.charged_s / self._rate(greediest)
        too_far_s = self._ahead_s(greediest) - own_s - (latest.until - self.now()) - BURST * service_s
        is_behind = self._ahead_s(claimant) < self._ahead_s(greediest) - own_s
        self._shares.charge(claimant, -service_s)
        if too_far_s <= 0.0 or not is_behind:
            return False
        waited_s = self.now() - latest.since
        message = f"after {round(waited_s, 2):g} s requests with other keys came, and this key has its share of it"
        self._push_out(latest, QueueFull(message, self._expected_s(), is_late=True))
        return True

    def _push_out(self, waiter: _Waiter, why: QueueFull) -> None:
        self._leave(waiter)
        if not waiter.turn.done():
            waiter.turn.set_exception(why)

    def _make_room(self, claimant: Claimant, max_waiting: int) -> None:
        """QueueFull where too many wait already. Where another key has more than its share of the queue, the latest of
        that one's requests is refused instead."""
        if len(self._queue) < max_waiting:
            return
        message = f"{len(self._queue)} requests wait for it already"
        greediest = max(self._lines, key=self._ahead_s, default=claimant)
        mine_s = self._ahead_s(claimant) + self._service_s() / self._rate(claimant)
        if max_waiting == 0 or greediest == claimant or self._ahead_s(greediest) <= mine_s:
            raise QueueFull(message, self._expected_s())
        latest = next(reversed(self._lines[greediest]))
        self._push_out(latest, QueueFull(message, self._expected_s()))

    def _expected_s(self) -> float | None:
        """How long one who came now would wait, behind all others; None while nothing is known."""
        return None if self._times.mean_s is None else (len(self._queue) + 1) * self._times.mean_s / self._limit

    def _service_s(self) -> float:
        return GUESS_S if self._times.mean_s is None else self._times.mean_s

    def _rate(self, claimant: Claimant) -> float:
        """How many places are its own."""
        return self._limit * self._shares.share(claimant)

    def _ahead_s(self, claimant: Claimant) -> float:
        """How long it takes until all that it has got, or waits for, was due to it."""
        return self._shares.debt(claimant) / self._rate(claimant)

    # -- the queue

    def _join(self, claimant: Claimant, wait_s: float) -> _Waiter:
        charged_s, now = self._service_s(), self.now()
        self._shares.charge(claimant, charged_s)
        waiter = _Waiter(claimant, charged_s, now, now + wait_s)
        self._queue[waiter] = None
        self._lines.setdefault(claimant, collections.OrderedDict())[waiter] = None
        return waiter

    def _leave(self, waiter: _Waiter) -> None:
        """It waits no longer, and owes nothing."""
        if self._take(waiter):
            self._pay()
            self._shares.charge(waiter.claimant, -waiter.charged_s)

    def _take(self, waiter: _Waiter) -> bool:
        """Out of the queue; False where it was not in it."""
        if waiter not in self._queue:
            return False
        del self._queue[waiter]
        line = self._lines[waiter.claimant]
        del line[waiter]
        if not line:
            del self._lines[waiter.claimant]
        return True

    def _admit(self) -> None:
        while self._queue and len(self._running) < self._limit:
            waiter = self._next()
            self._take(waiter)
            if not waiter.turn.done():
                waited_s = self.now() - waiter.since
                waiter.turn.set_result(self._permit(waiter.claimant, waiter.charged_s, waited_s))
            else:  # a cancelled one is still there until its task has run
                self._shares.charge(waiter.claimant, -waiter.charged_s)

    def _next(self) -> _Waiter:
        """Whoever's time is about to be over; else the first of the claimant who has got least of what it was due."""
        in_time = sorted(self._queue, key=lambda waiter: waiter.until)
        each_s, now = self._service_s() / self._limit, self.now()
        if any(waiter.until - now < at * each_s for at, waiter in enumerate(in_time, 1)):
            return in_time[0]
        return next(iter(self._lines[min(self._lines, key=self._turn)]))

    def _turn(self, claimant: Claimant) -> tuple[float, bool, float]:
        """How far it is ahead with what it has got, then interactive before batch, then who came first."""
        line = self._lines[claimant]
        owed_s = self._shares.debt(claimant) - sum(waiter.charged_s for waiter in line)
        return owed_s / self._rate(claimant), claimant.is_batch, next(iter(line)).since

    def _permit(self, claimant: Claimant, charged_s: float, waited_s: float) -> Permit:
        permit = Permit(self, claimant, charged_s, waited_s)
        self._running[permit] = None
        return permit

    def _pay(self) -> None:
        """Debts are paid with the time that has passed. A request that lasts longer than was expected owes the rest
        while it lasts: it must not owe at its end what was its share all the time."""
        now = self.now()
        for permit in self._running:
            more_s = now - permit.since - permit.charged_s
            if more_s > 0.0:
                permit.charged_s += more_s
                self._shares.charge(permit.claimant, more_s)
        self._shares.pay((now - self._paid_at) * self._limit)
        self._paid_at = now
